"""An experiment: YAML files, presets and options, merged into frozen, validated settings.

The variables with their units and ranges are declared here too.
"""
