"""Stage `prepare`: read catalog entries, write `cube.zarr` and the folds.

`copy_sources` copies the sources beforehand, and `append` adds new days to a cube.
"""

from __future__ import annotations

from pipeline.prepare.stage import run

__all__ = ["run"]
