"""EASE-Grid 2.0, regridding, nearest places, collocated sites and spatial blocks.

These modules work on arrays: they read no files and know nothing of experiments.
"""
