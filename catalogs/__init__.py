"""Intake catalogs: where the data is. README.md tells the form of each entry."""
