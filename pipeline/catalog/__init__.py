"""Open the sources of an experiment: find catalog entries, clip, screen and join their data.

The results are datasets on the grid and records of sites.
"""
