"""Intake driver for Zarr stores that soilweave has written, in their own names and units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from intake.source.base import DataSource

if TYPE_CHECKING:
    import xarray as xr


class ZarrSource(DataSource):  # type: ignore[misc]
    """Read a group of a Zarr store.

    The driver of intake-xarray 2.0.0 is not used, because it ignores the parameters of an entry.

    Args:
      urlpath: The store.
      group: Path of the group in the store; None for the root.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.
    """

    name = "soilweave_zarr"
    version = "1"
    container = "xarray"
    partition_access = False

    def __init__(
        self,
        urlpath: str,
        group: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; open nothing yet."""
        super().__init__(metadata=metadata)
        self.urlpath, self.group = urlpath, group
        self.storage_options = storage_options or {}

    def to_dask(self) -> xr.Dataset:
        """Open the group and decode it, as lazy arrays with one dask chunk per chunk of the store.

        Raises:
          FileNotFoundError: If there is no such store or group.
        """
        import xarray as xr

        options = self.storage_options or None
        dataset: xr.Dataset = xr.open_zarr(self.urlpath, group=self.group, storage_options=options)
        return dataset

    read = to_dask
