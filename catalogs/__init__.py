"""Intake catalogs: where the data is. README.md describes the form of an entry."""
