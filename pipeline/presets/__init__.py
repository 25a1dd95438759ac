"""Experiments and recipes that ship with soilweave, as YAML."""
