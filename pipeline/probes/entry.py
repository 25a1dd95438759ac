"""Write a catalog entry for a table of probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ConfigError
from pipeline.probes import written
from pipeline.probes.words import TARGET
from pipeline.sources import http_errors
from pipeline.sources.table.layers import named

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.files import Json
    from pipeline.probes.probed import Examined

LICENSE = "own data, not published"


def write(table: Examined, data: xr.Dataset, catalog: str, name: str, license_: str) -> str:
    """Write an entry for a table into a catalog.

    Args:
      table: what is known of the table.
      data: its daily values.
      catalog: file of the catalog.
      name: name of the entry.
      license_: licence of the data.

    Returns:
      A sentence that says what was written.

    Raises:
      ConfigError: If the catalog cannot be edited, or the URL of the table contains credentials.
    """
    if "://" in table.url and http_errors.shown(table.url) != table.url:
        problem = (
            "the URL contains a user name, a password or a query; credentials are not allowed in a "
            "catalog"
        )
        raise ConfigError(
            http_errors.shown(table.url), problem, remedy="give a plain URL, or a file"
        )
    action = written.put(catalog, name, _entry(table, data, license_))
    note = "" if license_ != LICENSE else f" (license: {LICENSE}; --set license=... changes it)"
    return (
        f"{name} {action} in {catalog}{note}; an experiment names it as "
        f"sources.insitu=[{catalog}:{name}]"
    )


def _entry(table: Examined, data: xr.Dataset, license_: str) -> Json:
    """Return the complete entry of a table."""
    lat, lon = data.lat.values, data.lon.values
    days = data.time.values[np.isfinite(data[TARGET].values).any(1)].astype("datetime64[D]")
    mapping = table.guess.args["mapping"]
    edges = (lon.min(), lon.max(), lat.min(), lat.max())
    return {
        "driver": "pipeline.sources.table.TableSource",
        "description": f"own probes of {table.url.rpartition('/')[2]}, {len(lat)} sites",
        "args": {"urlpath": table.url, **table.guess.args},
        "metadata": {
            "support": "site",
            "license": license_,
            "doi": "none",
            "auth": "anonymous" if "://" in table.url else "none",
            "region": "longitude {:g}..{:g}, latitude {:g}..{:g}".format(*edges),
            "native_grid": "points",
            "native_units": ", ".join(f"{named(s)} {s['units']}" for s in mapping.values()),
            "time_convention": data.time_convention,
            "period": f"{days[0]}..{days[-1]}",
            "origin": table.url,
            "verified": True,
            "volume": {
                "days": int((days[-1] - days[0]).astype(int)) + 1,
                "per": "all",
                "megabytes": max(round(table.size / 1e6, 3), 0.001),
                "basis": "measured",
            },
        },
    }
