"""The scientific method on arrays: PyTorch and NumPy only, without Ray, Zarr or files."""
