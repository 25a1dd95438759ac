"""`export`: maps as files that every program opens: GeoTIFF, NetCDF, and tables at places."""

from __future__ import annotations

from pipeline.export.stage import Options, check, export

__all__ = ["Options", "check", "export"]
