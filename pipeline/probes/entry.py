"""The catalog entry of a table of probes."""

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


def write(found: Examined, data: xr.Dataset, catalog: str, name: str, license_: str) -> str:
    """Write an entry for a table into a catalog.

    Returns:
      What is said of it.

    Raises:
      ConfigError: the catalog cannot be edited, or the URL of the table holds credentials.
    """
    if "://" in found.url and http_errors.shown(found.url) != found.url:
        problem = "the URL holds a name, password or query, and credentials are in no catalog"
        raise ConfigError(
            http_errors.shown(found.url), problem, remedy="give a plain URL, or a file"
        )
    done = written.put(catalog, name, _entry(found, data, license_))
    told = "" if license_ != LICENSE else f" (license: {LICENSE}; --set license=... for another)"
    return (
        f"{name} {done} in {catalog}{told}; an experiment names it as "
        f"sources.insitu=[{catalog}:{name}]"
    )


def _entry(found: Examined, data: xr.Dataset, license_: str) -> Json:
    """The entry of the table, complete."""
    lat, lon = data.lat.values, data.lon.values
    days = data.time.values[np.isfinite(data[TARGET].values).any(1)].astype("datetime64[D]")
    mapping = found.guess.args["mapping"]
    edges = (lon.min(), lon.max(), lat.min(), lat.max())
    return {
        "driver": "pipeline.sources.table.TableSource",
        "description": f"own probes of {found.url.rpartition('/')[2]}, {len(lat)} sites",
        "args": {"urlpath": found.url, **found.guess.args},
        "metadata": {
            "support": "site",
            "license": license_,
            "doi": "none",
            "auth": "anonymous" if "://" in found.url else "none",
            "region": "longitude {:g}..{:g}, latitude {:g}..{:g}".format(*edges),
            "native_grid": "points",
            "native_units": ", ".join(f"{named(s)} {s['units']}" for s in mapping.values()),
            "time_convention": data.time_convention,
            "period": f"{days[0]}..{days[-1]}",
            "origin": found.url,
            "verified": True,
            "volume": {
                "days": int((days[-1] - days[0]).astype(int)) + 1,
                "per": "all",
                "megabytes": max(round(found.size / 1e6, 3), 0.001),
                "basis": "measured",
            },
        },
    }
