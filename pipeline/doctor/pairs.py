"""Sites of an experiment, over all its sources: which are at one place, which share an id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import domain, schema, sites, twins
from pipeline.doctor import admission
from pipeline.doctor.symptoms import Symptom, of_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from pipeline.config import Experiment
    from pipeline.doctor.cases import Case
    from pipeline.doctor.rounds import Found
    from pipeline.files import Json

SHOWN = 20  # pairs whose records are read and compared

Row = tuple[str, Symptom]


def of(seen: Sequence[tuple[Case, Found, str]]) -> tuple[list[Row], list[Row]]:
    """Compare the positions and ids of all sites of an experiment.

    Args:
      seen: the cases, with what is wrong with each and what was looked at, as rounds.of gives it.

    Returns:
      what is to be known of them, and what is wrong; each with the entries it is true of.
    """
    opened, wrong = [], list[Row]()
    experiment = None
    for case, found, note in seen:
        if case.experiment is None or case.label not in case.experiment.sources.insitu:
            continue
        if found and not note.partition(" ")[2]:
            continue  # it cannot be read, as its own rows tell
        experiment = case.experiment
        try:
            dataset, _ = admission.opened(case, admission.driver(case), None)
            opened.append(dataset.assign_attrs(entry=case.label))
        except Exception as error:  # noqa: BLE001  # told with the entry, unless it was already
            wrong += [] if found else [(case.label, symptom) for symptom in of_error(error)]
    if experiment is None or not opened:
        return [], wrong
    try:
        used = [_inside(experiment, d) for d in domain.without_excluded(experiment, opened)]
        return [*_same_ids(used), *_same_places(experiment, used)], wrong
    except Exception as error:  # noqa: BLE001  # whatever a provider's file provokes is a finding
        label = ", ".join(experiment.sources.insitu)
        return [], wrong + [(label, symptom) for symptom in of_error(error)]
    finally:
        for dataset in opened:
            dataset.close()


def _inside(experiment: Experiment, dataset: xr.Dataset) -> xr.Dataset:
    """The sites of a source that the experiment uses: in its domain, where cells are needed."""
    if experiment.inputs_from == "own":
        return dataset
    y, _ = schema.window(experiment).cells_of(dataset.lat.values, dataset.lon.values)
    return dataset.isel(place=y >= 0)


def _same_ids(opened: Sequence[xr.Dataset]) -> list[Row]:
    ids, entry = _listed(opened)
    _, repeated = sites.distinct(ids, entry)
    if not repeated:
        return []
    found = f"in more than one source, called {', '.join(repeated)}"
    remedy = "none is needed; qc.exclude_sites takes entry:id too"
    return [(", ".join(dict.fromkeys(entry)), Symptom("ids", found, remedy))]


def _same_places(experiment: Experiment, opened: Sequence[xr.Dataset]) -> list[Row]:
    ids, entry = _listed(opened)
    called, _ = sites.distinct(ids, entry)
    lat, lon = (np.concatenate([d[axis].values for d in opened]) for axis in ("lat", "lon"))
    found = twins.of_experiment(experiment, lat, lon)
    nearest = twins.Twins(found.pair[:SHOWN], found.km[:SHOWN])
    duplicates = experiment.qc.duplicate_sites
    remedy = f"none is needed; {twins.REMEDY}"
    if duplicates != "keep":
        remedy = f"made one site by qc.duplicate_sites: {duplicates}"
    made, compared = [], _compared(experiment, opened, called, nearest)
    for pair, (a, b) in zip(compared, nearest.pair, strict=True):
        of_both = ", ".join(dict.fromkeys([entry[a], entry[b]]))
        made.append((of_both, Symptom("twins", twins.told(pair), remedy)))
    if more := len(found.pair) - len(nearest.pair):
        label = ", ".join(dict.fromkeys(entry))
        made.append((label, Symptom("twins", f"and {more} more pairs at one place", remedy)))
    return made


def _compared(
    experiment: Experiment, opened: Sequence[xr.Dataset], called: list[str], pairs: twins.Twins
) -> list[Json]:
    """The pairs with the correlation of their records; no other site is read."""
    members, first, values = np.unique(pairs.pair), 0, []
    days = schema.period_days(experiment.period)
    for dataset in opened:
        own = members[(members >= first) & (members < first + dataset.sizes["place"])] - first
        first += dataset.sizes["place"]
        if own.size:
            part, _ = sites.screened(experiment, dataset.isel(place=own), "")
            values.append(part[experiment.target].transpose("time", "place").values)
    if not values:
        return []
    among = pairs._replace(pair=np.searchsorted(members, pairs.pair))
    ids = [called[i] for i in members.tolist()]
    return twins.described(among, ids, np.concatenate(values, 1), days)


def _listed(opened: Sequence[xr.Dataset]) -> tuple[list[str], list[str]]:
    """Of every site of all sources its id and what its entry is called."""
    ids = [str(i) for dataset in opened for i in dataset.place.values]
    called = sites.short_names([str(dataset.attrs["entry"]) for dataset in opened])
    return ids, [called[str(d.attrs["entry"])] for d in opened for _ in range(d.sizes["place"])]
