"""A table of a user's own probes: columns and units guessed, rows checked, places located."""
