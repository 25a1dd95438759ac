"""Simulate a planet whose truth is known, for observing-system simulation experiments (OSSE).

`planet` holds all parameters. `land`, `weather` and `bucket` simulate the truth. `forcing`,
`attributes`, `satellite` and `sites` simulate observations of it, each with its own errors and
random streams. `netcdf` and `spl3smp` format the files, and `write.generate` produces them.
"""
