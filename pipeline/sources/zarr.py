"""Zarr stores on any URL, in the names and units they have: what soilweave itself writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from intake.source.base import DataSource

if TYPE_CHECKING:
    import xarray as xr


class ZarrSource(DataSource):  # type: ignore[misc]
    """Intake driver of a group of a Zarr store.

    intake-xarray 2.0.0 has one too, but its sources ignore the parameters of an entry.

    Args:
      urlpath: the store.
      group: the group in it, None for the root.
      storage_options: passed to fsspec.
      metadata: what the catalog says of the entry.
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
        """Keep the arguments; nothing is opened yet."""
        super().__init__(metadata=metadata)
        self.urlpath, self.group = urlpath, group
        self.storage_options = storage_options or {}

    def to_dask(self) -> xr.Dataset:
        """The group, decoded, nothing read yet: one dask chunk per chunk of the store.

        Raises:
          FileNotFoundError: there is no such store or group.
        """
        import xarray as xr

        options = self.storage_options or None
        dataset: xr.Dataset = xr.open_zarr(self.urlpath, group=self.group, storage_options=options)
        return dataset

    read = to_dask
