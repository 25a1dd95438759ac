"""Compare the sites of all sources of an experiment: equal positions and equal ids."""

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
    from pipeline.doctor.rounds import Examination
    from pipeline.files import Json

SHOWN = 20  # pairs of sites at one place whose records are read and compared

Row = tuple[str, Symptom]  # the names of the entries that a finding concerns, and the finding


def of(examinations: Sequence[Examination]) -> tuple[list[Row], list[Row]]:
    """Compare the positions and ids of all sites of an experiment.

    Args:
      examinations: the results for each entry.

    Returns:
      Notes about the sites, and problems in reading them.
    """
    opened, problems = [], list[Row]()
    experiment = None
    for case, findings, _, sample in examinations:
        if case.experiment is None or case.label not in case.experiment.sources.insitu:
            continue
        if findings and not sample:
            continue  # it cannot be read, which the findings of the entry say already
        experiment = case.experiment
        try:
            dataset, _ = admission.opened(case, admission.driver(case), None)
            opened.append(dataset.assign_attrs(entry=case.label))
        except Exception as error:  # noqa: BLE001  # reported here unless the entry has findings
            problems += [] if findings else [(case.label, finding) for finding in of_error(error)]
    if experiment is None or not opened:
        return [], problems
    try:
        used = [_inside(experiment, d) for d in domain.without_excluded(experiment, opened)]
        return [*_same_ids(used), *_same_places(experiment, used)], problems
    except Exception as error:  # noqa: BLE001  # any error from a provider's file is a finding
        label = ", ".join(experiment.sources.insitu)
        return [], problems + [(label, finding) for finding in of_error(error)]
    finally:
        for dataset in opened:
            dataset.close()


def _inside(experiment: Experiment, dataset: xr.Dataset) -> xr.Dataset:
    """Select the sites that the experiment uses: those in its domain, if inputs come from cells."""
    if experiment.inputs_from == "own":
        return dataset
    y, _ = schema.window(experiment).cells_of(dataset.lat.values, dataset.lon.values)
    return dataset.isel(place=y >= 0)


def _same_ids(opened: Sequence[xr.Dataset]) -> list[Row]:
    """Note the ids that occur in more than one source."""
    ids, entries = _listed(opened)
    _, repeated = sites.distinct(ids, entries)
    if not repeated:
        return []
    message = f"ids in more than one source; these sites are named {', '.join(repeated)}"
    hint = "none is needed; qc.exclude_sites accepts entry:id too"
    return [(", ".join(dict.fromkeys(entries)), Symptom("ids", message, hint))]


def _same_places(experiment: Experiment, opened: Sequence[xr.Dataset]) -> list[Row]:
    """Note the pairs of sites at one place, the first of them with their correlation."""
    ids, entries = _listed(opened)
    names, _ = sites.distinct(ids, entries)
    lat, lon = (np.concatenate([d[axis].values for d in opened]) for axis in ("lat", "lon"))
    pairs = twins.of_experiment(experiment, lat, lon)
    shown = twins.Twins(pairs.pair[:SHOWN], pairs.km[:SHOWN])
    duplicates = experiment.qc.duplicate_sites
    hint = f"none is needed; {twins.REMEDY}"
    if duplicates != "keep":
        hint = f"none is needed; qc.duplicate_sites={duplicates} makes them one site"
    rows, compared = [], _compared(experiment, opened, names, shown)
    for comparison, (a, b) in zip(compared, shown.pair, strict=True):
        both_entries = ", ".join(dict.fromkeys([entries[a], entries[b]]))
        rows.append((both_entries, Symptom("twins", twins.told(comparison), hint)))
    if n_more := len(pairs.pair) - len(shown.pair):
        label = ", ".join(dict.fromkeys(entries))
        rows.append((label, Symptom("twins", f"and {n_more} more pairs at one place", hint)))
    return rows


def _compared(
    experiment: Experiment, opened: Sequence[xr.Dataset], names: list[str], pairs: twins.Twins
) -> list[Json]:
    """Describe pairs with the correlation of their records; no other site is read.

    Args:
      experiment: the experiment.
      opened: its sources of sites.
      names: a distinct name for every site of all sources.
      pairs: indices of sites, and their distances.
    """
    members, first, values = np.unique(pairs.pair), 0, []
    days = schema.period_days(experiment.period)
    for dataset in opened:
        n_sites = dataset.sizes["place"]
        in_dataset = members[(members >= first) & (members < first + n_sites)] - first
        first += n_sites
        if in_dataset.size:
            part, _ = sites.screened(experiment, dataset.isel(place=in_dataset), "")
            values.append(part[experiment.target].transpose("time", "place").values)
    if not values:
        return []
    among_members = pairs._replace(pair=np.searchsorted(members, pairs.pair))
    member_names = [names[i] for i in members.tolist()]
    return twins.described(among_members, member_names, np.concatenate(values, 1), days)


def _listed(opened: Sequence[xr.Dataset]) -> tuple[list[str], list[str]]:
    """Return the id of every site of all sources, and the short name of its entry."""
    ids = [str(i) for dataset in opened for i in dataset.place.values]
    short_names = sites.short_names([str(dataset.attrs["entry"]) for dataset in opened])
    entries = [short_names[str(d.attrs["entry"])] for d in opened for _ in range(d.sizes["place"])]
    return ids, entries
