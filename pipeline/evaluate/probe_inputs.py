"""Read the inputs of a user's probes: from their own file, or from the cells of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.catalog import experiment_sources
from pipeline.errors import DataError
from pipeline.experiment import shipped_models
from pipeline.grid import lookup, remap
from pipeline.storage import schema

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from model.features import Features
    from pipeline.catalog.experiment_sources import Sources
    from pipeline.experiment.config import Experiment


class ProbeInputs(NamedTuple):
    """The inputs of probes.

    Attributes:
      forcing: (site, day, forcing) in physical units, NaN where missing.
      static: (site, static) in physical units, NaN where missing.
      cell_km: (site,) distance in km to the centre of the nearest cell with forcing; 0 where the
        inputs are the probe's own, or those of the cell that contains it.
    """

    forcing: NDArray[np.float32]
    static: NDArray[np.float32]
    cell_km: NDArray[np.float64]


def read_inputs(
    experiment: Experiment,
    raw: xr.Dataset,
    days: NDArray[np.datetime64],
    features: Features,
    nearest_km: float = 0.0,
) -> ProbeInputs:
    """Read the inputs of probes, of their file or of the cells.

    Args:
      experiment: Says where inputs come from.
      raw: The probes, with coordinates `lat` and `lon` (place).
      days: (day,) the days to read.
      features: The inputs of the models.
      nearest_km: Probes that are in no cell with forcing take the inputs of the nearest cell that
        has some within this distance. Inputs of other probes outside such cells are NaN.

    Raises:
      DataError: If the probes should have inputs of their own, and do not.
    """
    if experiment.inputs_from == "own":
        _check_own_inputs(experiment, raw, features)
        forcing = [raw[name].reindex(time=days).values.T for name in features.forcing]
        static = [raw[name].values for name in features.static]
        cell_km = np.zeros(raw.sizes["place"])
    else:
        sources = experiment_sources.open_sources(experiment)
        start = min(int((days < np.datetime64(experiment.period[0], "ns")).sum()), len(days) - 1)
        first_days = days[start : start + schema.BLOCK_DAYS]
        has_forcing = _cells_with_forcing(sources, features.forcing[0], first_days)
        (y, x), cell_km = _choose_cells(sources, has_forcing, raw, nearest_km)
        outside = y < 0

        def at_sites(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
            at_cells = sources.on_cells(name, values)[..., y, x]
            at_cells[..., outside] = np.nan
            return at_cells

        def series(name: str) -> NDArray[np.float32]:
            # Read in blocks: all days of all cells of a large domain would not fit into memory.
            blocks = np.array_split(days, -(-len(days) // schema.BLOCK_DAYS))
            dataset = sources.forcing[name]
            fields = (remap.read_days(dataset, name, block) for block in blocks)
            return np.concatenate([at_sites(name, values) for values in fields]).T

        forcing = [series(n) for n in features.forcing]
        static = [at_sites(n, sources.static_values[n]) for n in features.static]
    empty = np.zeros((raw.sizes["place"], 0), np.float32)
    return ProbeInputs(np.stack(forcing, 2), np.stack(static, 1) if static else empty, cell_km)


def _cells_with_forcing(
    sources: Sources, name: str, days: NDArray[np.datetime64]
) -> NDArray[np.bool_]:
    """Return which cells (y, x) have a variable of forcing on any of some days."""
    values = remap.read_days(sources.forcing[name], name, days)
    return np.asarray(np.isfinite(sources.on_cells(name, values)).any(0))


def _choose_cells(
    sources: Sources, has_forcing: NDArray[np.bool_], raw: xr.Dataset, nearest_km: float
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]:
    """Return row and column of the cell that gives each probe its inputs, and `cell_km`."""
    lat, lon, window = raw.lat.values, raw.lon.values, sources.window
    y, x = window.cells_of(lat, lon)
    contained = (y >= 0) & has_forcing[y, x]
    rows, cols = np.nonzero(has_forcing)
    if not len(rows):
        return (y, x), np.where(contained, 0.0, np.inf)
    nearest, km = lookup.find_nearest(lat, lon, window.cell_lat[rows], window.cell_lon[cols])
    moved = ~contained & (km <= nearest_km)
    y, x = np.where(moved, rows[nearest], y), np.where(moved, cols[nearest], x)
    return (y, x), np.where(contained, 0.0, km)


def _check_own_inputs(experiment: Experiment, raw: xr.Dataset, features: Features) -> None:
    """Check that the file has the inputs of models that were trained on each site's own inputs.

    Raises:
      DataError: If inputs are missing, naming them.
    """
    missing = []
    for kind, names in (("each day", features.forcing), ("once", features.static)):
        absent = [f"{n} ({experiment.table[n].units})" for n in names if n not in raw]
        if absent:
            missing.append(f"{kind} {', '.join(absent)}")
    if missing:
        problem = (
            f"own inputs missing: the models of {experiment.name} were trained on inputs of each "
            f"site itself (inputs_from: own), not of its cell, so every site in the file must have "
            f"{'; '.join(missing)}"
        )
        hint = (
            "add them to the file and to its entry's mapping, or use an experiment that takes "
            "inputs from cells (inputs_from: cell)"
        )
        if experiment.models in shipped_models.list_names():
            hint += ", as: soilweave score FILE.csv"
        raise DataError(str(raw.attrs["entry"]), problem, remedy=hint)
