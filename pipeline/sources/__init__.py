"""Intake drivers, one for each provider format.

A driver takes a catalog entry and returns a dataset. It knows neither experiments nor workspaces.
"""
