"""Gridded data in files or arrays: find and check the files, and aggregate them to days."""
