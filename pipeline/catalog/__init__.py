"""What an experiment reads: catalog entries, opened, clipped, screened and joined.

Datasets on the grid and records of sites come out.
"""
