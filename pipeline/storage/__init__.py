"""Everything below a workspace URL: the form of each artefact, its identity, and how it is written.

Zarr arrays, Parquet tables, manifests and the lease of a workspace.
"""
