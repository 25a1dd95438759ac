"""Workspaces and their artefacts: layout, identity, reading and writing.

An artefact is a Zarr store, a Parquet table or a folder of models, described by a manifest. A
lease makes sure that one process at a time writes into a workspace.
"""
