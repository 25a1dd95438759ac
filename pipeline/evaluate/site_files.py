"""Write what `evaluate` knows of every site, for spreadsheets and for other validation tools.

site_scores.csv has one row per site and arm or baseline:
  site, network (empty if the provider names none), lat, lon (degrees), candidate, fold
  n: number of days with both values; n_eff: effective number of independent days, of R
  a column for each metric, empty where the site is not scored, and the columns {metric}_low and
    {metric}_high for metrics with an analytic 95 % interval.

collocated.zip has observations and all predictions at the sites on the days of the test period, in
the form in which QA4SM (https://qa4sm.eu) accepts time series of its users: `grid.nc` lists the
sites, and `0000.nc` has their series as CF's contiguous ragged array (featureType timeSeries). The
package pynetcf reads such files, and so does xarray.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model import metrics
from pipeline import files
from pipeline.storage import zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5netcdf
    from numpy.typing import NDArray

    from pipeline.evaluate.scoring import Candidate, Sites
    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube


SITE_SCORES, COLLOCATED = "site_scores.csv", "collocated.zip"
INTERVALS = ("correlation", "ubrmse", "bias")  # metrics with an analytic interval
DIGITS = "%.6g"
_STORED = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same content makes the same file
_CELL = 0  # all sites are in one file; its number is its name


def write_site_files(
    experiment: Experiment,
    workspace: Workspace,
    cube: Cube,
    sites: Sites,
    candidates: list[Candidate],
    scores: pd.DataFrame,
) -> None:
    """Write site_scores.csv and collocated.zip.

    Args:
      experiment: the experiment.
      workspace: where to write.
      cube: the cube, which has these sites.
      sites: the observations.
      candidates: the predictions.
      scores: the scores table of these sites.

    Raises:
      StoreError: If a file cannot be written.
    """
    table = site_table(cube, scores)
    text = table.to_csv(index=False, float_format=DIGITS, lineterminator="\n")
    files.write_bytes(workspace.url(SITE_SCORES), text.encode())
    archive = collocated_series(experiment, cube, sites, candidates)
    files.write_bytes(workspace.url(COLLOCATED), archive)


def site_table(cube: Cube, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the content of site_scores.csv; see the module.

    Args:
      cube: a cube with sites.
      scores: a scores table; only its rows of sites count.
    """
    assert cube.sites is not None
    about = pd.DataFrame(
        {
            "site": cube.site_ids,
            "network": networks(cube),
            "lat": cube.sites["lat"].values,
            "lon": cube.sites["lon"].values,
        }
    ).set_index("site")
    parts = []
    for name, rows in scores[scores.target == "site"].groupby("arm", sort=False):
        by_metric = {str(metric): of.set_index("id") for metric, of in rows.groupby("metric")}
        r = by_metric["correlation"]
        columns = {"candidate": name, "fold": r.fold, "n": r.n, "n_eff": r.n_eff}
        for metric in metrics.METRICS:
            columns[metric] = by_metric[metric].value
            if metric in INTERVALS:
                columns |= {f"{metric}_{end}": by_metric[metric][end] for end in ("low", "high")}
        parts.append(about.join(pd.DataFrame(columns), how="inner"))
    return pd.concat(parts).rename_axis("site").reset_index()


def networks(cube: Cube) -> list[str]:
    """Return the network of each site of a cube, as its provider names it; else empty text."""
    named = zarr_arrays.read_attributes(cube.url, "sites").get("network")
    return [str(name) for name in named] if named else [""] * len(cube.site_ids)


def collocated_series(
    experiment: Experiment, cube: Cube, sites: Sites, candidates: list[Candidate]
) -> bytes:
    """Return the content of collocated.zip; see the module."""
    assert cube.sites is not None
    lat, lon = (cube.sites[name].values.astype(np.float64) for name in ("lat", "lon"))
    variable = experiment.table[experiment.target]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (
            ("grid.nc", _grid_file(lat, lon)),
            (f"{_CELL:04d}.nc", _series_file(variable, lat, lon, sites, candidates)),
        ):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), content)
    return buffer.getvalue()


def _grid_file(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> bytes:
    """Return a grid of places as the package pygeogrids stores it."""
    import h5netcdf

    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as out:
        out.dimensions = {"gp": len(lat)}
        number = np.arange(len(lat), dtype=np.int32)
        _put(out, "gpi", ("gp",), number, long_name="grid point index", units="1")
        _put(out, "cell", ("gp",), np.full_like(number, _CELL), long_name="cell", units="1")
        _put_places(out, "gp", lat, lon)
        crs = out.create_variable("crs", (), np.int32)
        crs.attrs["grid_mapping_name"] = "latitude_longitude"
        crs.attrs["ellipsoid_name"] = "WGS84"
        out.attrs["Conventions"] = "CF-1.11"
        out.attrs["gpidirect"] = np.int32(0x0B)
        out.attrs["shape"] = np.int32(len(lat))
    return buffer.getvalue()


def _series_file(
    variable: Variable,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    sites: Sites,
    candidates: list[Candidate],
) -> bytes:
    """Return the series of all sites as a contiguous ragged array; each site has all days."""
    import h5netcdf

    n_sites, n_days = sites.observed.shape
    days = sites.days.astype("datetime64[D]").astype(np.int64).astype(np.float64)
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as out:
        out.dimensions = {"locations": n_sites, "obs": n_sites * n_days}
        number, size = np.arange(n_sites, dtype=np.int64), np.full(n_sites, n_days, np.int64)
        _put(out, "location_id", ("locations",), number, long_name="grid point index")
        names = out.create_variable("location_description", ("locations",), dtype=_text_type())
        names[...] = np.array(sites.ids, object)
        names.attrs["long_name"] = "id of the site"
        names.attrs["cf_role"] = "timeseries_id"
        _put_places(out, "locations", lat, lon)
        told = "number of observations at this location"
        _put(out, "row_size", ("locations",), size, long_name=told, sample_dimension="obs")
        since = {"standard_name": "time", "units": "days since 1970-01-01 00:00:00"}
        _put(out, "time", ("obs",), np.tile(days, n_sites), calendar="standard", **since)
        for name, values, about in _columns(variable, sites, candidates):
            _put(out, name, ("obs",), values.astype(np.float32).ravel(), **about)
        out.attrs["Conventions"] = "CF-1.11"
        out.attrs["featureType"] = "timeSeries"
        out.attrs["title"] = f"{variable.long_name}: observations and predictions at sites"
    return buffer.getvalue()


def _columns(
    variable: Variable, sites: Sites, candidates: list[Candidate]
) -> Iterator[tuple[str, NDArray[Any], dict[str, str]]]:
    """Yield name, values (site, day) and attributes of each series."""
    about = {"units": variable.units, "coordinates": "time lat lon"}
    named = {} if variable.standard_name is None else {"standard_name": variable.standard_name}
    told = f"{variable.long_name}, observed"
    yield "observation", sites.observed, {"long_name": told} | named | about
    for c in candidates:
        # QA4SM accepts letters, digits and underscores, at most 30 of them.
        name = re.sub(r"\W", "_", c.name, flags=re.ASCII)[:26]
        told = f"{variable.long_name} of {c.name}"
        yield name, c.prediction, {"long_name": told} | named | about
        if c.std is not None and np.isfinite(c.std).any():  # an arm without sites has none
            told = f"standard deviation of the error of {c.name}"
            yield f"{name}_std", c.std, {"long_name": told} | about


def _put_places(
    out: h5netcdf.File, dim: str, lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> None:
    """Add the coordinates of places to a file."""
    for name, values, full, units in (
        ("lat", lat, "latitude", "degrees_north"),
        ("lon", lon, "longitude", "degrees_east"),
    ):
        _put(out, name, (dim,), values, standard_name=full, long_name=full, units=units)


def _put(
    out: h5netcdf.File, name: str, dims: tuple[str, ...], values: NDArray[Any], **attrs: str
) -> None:
    """Add a compressed variable to a file; floats that are missing are NaN."""
    fill: dict[str, Any] = {"fillvalue": np.float32(np.nan)} if values.dtype == np.float32 else {}
    created = out.create_variable(name, dims, values.dtype, **_STORED, **fill)
    created[...] = values
    for key, value in attrs.items():
        created.attrs[key] = value


def _text_type() -> Any:
    import h5py

    return h5py.string_dtype()
