"""Figures of the report: arrays in, pictures for a page out. Nothing here reads an artefact."""
