"""The science: arrays in, arrays out. Knows torch and numpy, and nothing of Ray, Zarr or files."""
