"""Words of the page: the headline, what was judged, data and their QC, how it all was made."""

from __future__ import annotations

import importlib.metadata
from datetime import datetime
from typing import TYPE_CHECKING

import yaml

import pipeline
from pipeline import files, missing, models, soundness, store
from pipeline.config import SATELLITE_BASELINE, reference_arm
from pipeline.figures import style
from pipeline.page import text
from pipeline.products import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.store import Workspace

VERSIONS = ("soilweave", "ray", "torch")


def headline(summary: Json, unit: str) -> str:
    """One sentence from the numbers: what the reference arm and the satellite have."""
    for key in ("truth", "sites"):
        judged = summary.get("truth", {}) if key == "truth" else summary
        if not judged.get("arms"):
            continue
        arms = judged["arms"]
        name = reference_arm([*arms])
        others = judged["baselines"]
        n = text.count(judged["n_cells"] if key == "truth" else judged["n_sites"])
        where = f"At {n} cells away from every site" if key == "truth" else f"At {n} held-out sites"
        if key == "sites" and summary["place"] == "seen":
            where = f"At {n} sites"
        against = " against the truth" if key == "truth" else ""
        sentence = f"{where}, {style.label(name)} has {_pair(arms[name], unit)}{against}"
        if SATELLITE_BASELINE in others:
            short = (
                _pair(others[SATELLITE_BASELINE], "").replace("R\xa0", "").replace("RMSE\xa0", "")
            )
            sentence += f"; the satellite itself has {short}"
        return sentence + "."
    seeds = summary.get("footprints", {}).get("all", {})
    described = seeds.get("ensemble") or next(iter(seeds.values()), None)
    if described is None:
        return "Nothing was scored."
    n = text.count(described["n_footprints"])
    days = "days it has not seen" if summary["time"] == "unseen" else "days it was trained on"
    return f"At {n} footprints, {style.label('satellite')} has {_pair(described, unit)} on {days}."


def facts(experiment: Experiment, summary: Json) -> list[tuple[str, str]]:
    """What was judged, as terms and their values."""
    seeds = f"{summary['n_seeds']} seed{'s' if summary['n_seeds'] > 1 else ''}"
    made, epochs = summary["updates"], experiment.train.epochs
    length = f"{epochs:,} epochs" if made is None else f"{made:,} updates"
    recipe = f"{summary['recipe']}, {length}, {seeds}"
    return [
        ("judged", f"{summary['place']} place, {summary['time']} time"),
        ("held out", experiment.folds.layout),
        ("trained", text.span(experiment.train_period)),
        ("tested", text.span(experiment.test_period)),
        ("recipe", recipe),
        ("scored from", f"{summary['min_days']} days with both values"),
    ]


def notes(experiment: Experiment, summary: Json) -> list[str]:
    """What a reader must know before believing a number."""
    found = []
    if experiment.tuned_on and experiment.planet is None:
        found.append(
            f"The settings of recipe {experiment.recipe} were chosen on "
            f"{experiment.tuned_on}: scores there are not scores on untouched data."
        )
    if set(experiment.arms) != {"insitu"} and experiment.folds.kind != "none":
        stay = "are left out of" if experiment.folds.drop_footprints else "stay in"
        found.append(f"Footprints that hold a held-out site {stay} the satellite training.")
    if entries := ", ".join(summary.get("statics_of_unknown_period", ())):
        found.append(f"Of which days the statics of {entries} are is not known.")
    if products := ", ".join(map(name_of, experiment.baselines)):
        found.append(f"Products ({products}) have at a site the value of their own cell there.")
    if n := len({row["id"] for row in summary.get("not_scored", ())}):
        found.append(f"Sites with too few days to be scored by some arm or baseline: {n}.")
    return found


def unlike_members(experiment: Experiment, workspace: Workspace) -> list[str]:
    """Members of ensembles that predict something else than the others, a sentence for each."""
    root, _ = models.source(experiment, workspace)
    manifest = store.Artefact("models", f"{root}/").manifest() or {}
    return [f"Warning: {soundness.odd(member)}." for member in manifest.get("unlike_members", ())]


def quality(experiment: Experiment, workspace: Workspace) -> Json:
    """Values dropped by each rule, values missing, and the catalog entries that were read."""
    made = workspace.prepared(experiment).artefact("cube"), workspace.artefact("scores")
    manifests = [artefact.manifest() or {} for artefact in made]
    dropped = []
    for rule, n in (item for m in manifests for item in m.get("dropped", {}).items()):
        source, _, name = rule.partition(": ")
        dropped.append({"source": source, "rule": name.replace("_", " "), "n": text.count(n)})
    entries = [
        {"name": name}
        | {k: said.get(k, text.ABSENT) for k in ("license", "doi", "time_convention")}
        for manifest in manifests
        for name, said in manifest.get("entries", {}).items()
    ]
    return {"dropped": dropped, "missing": _missing(manifests[0]), "entries": entries}


def _missing(cube: Json) -> list[Json]:
    """Values that the sources lack, by variable, with those that lack none."""
    return [
        {
            "where": where,
            "variable": name.replace("_", " "),
            "n": text.count(record["n"]),
            "share": f"{100 * record['n'] / max(record['of'], 1):.3g}",
            "days": text.count(missing.n_days(record)) if "days" in record else text.ABSENT,
            "infinite": text.count(record["infinite"]),
        }
        for where in ("cells", "footprints", "sites")
        for name, record in cube.get("missing", {}).get(where, {}).items()
    ]


def provenance(experiment: Experiment, workspace: Workspace) -> Json:
    """Artefacts with digest, commit and time taken; versions; the experiment as YAML."""
    described = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
    rows = list(_artefacts(experiment, workspace))
    longest = max((row["seconds"] for row in rows), default=0)
    for row in rows:
        row["share"] = round(100 * row["seconds"] / longest, 1) if longest else 0
    found = {name: _version(name) for name in VERSIONS}
    return {"artefacts": rows, "versions": found, "yaml": described, "root": workspace.root}


def _version(name: str) -> str:
    """Version of a package; of soilweave that of the running code, which a job does not install."""
    if name == "soilweave":
        return pipeline.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return text.ABSENT


def _artefacts(experiment: Experiment, workspace: Workspace) -> Iterator[Json]:
    for name in store.ARTEFACTS:
        holder = workspace.prepared(experiment) if name in ("planet", "cube") else workspace
        manifest = holder.artefact(name).manifest()
        if manifest is None or name == "report":
            continue
        begun, made = manifest.get("begun"), datetime.fromisoformat(manifest["created"])
        seconds = (made - datetime.fromisoformat(begun)).total_seconds() if begun else 0.0
        size = sum(shard["size"] for shard in manifest["shards"])
        yield {
            "name": name,
            "digest": manifest["inputs_sha256"][:12],
            "commit": (manifest["git_commit"] or text.ABSENT)[:10],
            "made": f"{made:%Y-%m-%d %H:%M} UTC",
            "size": f"{size / 1e6:,.1f}",
            "seconds": seconds,
            "took": _duration(seconds) if begun else text.ABSENT,
        }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _pair(described: Json, unit: str) -> str:
    """R and RMSE, to two significant figures."""
    r, rmse = described["median"]["correlation"], described["median"]["rmse"]
    decimals = max(text.digits("rmse", [described]) - 1, 0)
    error = text.number(rmse, decimals)
    made = f"R~{text.number(r, 2)} and RMSE~{error}{f'~{unit}' if unit else ''}"
    return made.replace("~", "\N{NO-BREAK SPACE}")


def opened(experiment: Experiment, workspace: Workspace, has_maps: bool) -> list[str]:
    """Three lines of Python that open what there is."""
    root, target = workspace.root, experiment.target
    lines = ["import pandas as pd, xarray as xr"]
    if has_maps:
        arm = "multiscale" if "multiscale" in experiment.arms else experiment.arms[0]
        lines.append(f'xr.open_zarr("{root}/maps/{arm}.zarr").{target}.isel(time=100).plot()')
    else:
        cube = workspace.prepared(experiment).url("cube.zarr")
        lines.append(f'xr.open_zarr("{cube}", group="cells")  # what the models saw')
    if files.exists(workspace.url("scores.parquet")):
        lines.append(f'pd.read_parquet("{root}/scores.parquet")  # every score, place by place')
    return lines
