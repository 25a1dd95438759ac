"""Stage `prepare`: catalog entries in, `cube.zarr` and folds out.

Copies of sources (`stage`) and new days (`append`) are here too.
"""

from __future__ import annotations

from pipeline.prepare.stage import run

__all__ = ["run"]
