"""Experiments: settings from YAML files, presets and `--set`, merged and validated.

The variables with their units and ranges are declared here too.
"""
