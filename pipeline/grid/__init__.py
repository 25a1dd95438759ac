"""EASE-Grid 2.0, regridding, look-up of cells, and spatial blocks.

Functions of arrays only: nothing here reads a file or knows an experiment.
"""
