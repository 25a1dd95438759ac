"""Pack the models of `scan` into soilweave, with a model card: `make weights`.

From an experiment in which all stages have run, this takes what prediction and scoring need: the
members of one arm that were trained on all sites, calibration, ridge regression, attributes and
places of the sites, and the priors of offsets. All of these are as the stages have written them;
the manifest lists what is left of the models.

Usage: PYTHONPATH=tests python -m studies.weights --help
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

import pipeline
from pipeline import files
from pipeline.errors import redact_tree
from pipeline.evaluate import bias_adjustment, known_models, probes
from pipeline.experiment.config import FARTHEST_CELL_KM
from pipeline.progress import SilentProgress
from pipeline.publish import content, model_card
from pipeline.storage import models, records, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "pipeline" / "experiment" / "presets" / "models"
ARM = "multiscale"
WITH_CELLS = ("correlation", "rmse", "ubrmse", "bias")
MANIFEST_KEYS = ("inputs_sha256", "inputs", "git_commit", "begun", "created", "updates", "features")
CARD_KEYS = ("predicts", "recipe", "data", "catalog", "training_period", "test_period", "domain")
LIMITS = (
    "All members have learnt from all 124 sites, so their scores at these places are no test. The "
    "scores above are those of models of the same kind that left out a fifth of the sites, in "
    "blocks of 500 km.",
    "Places were held out, days were not: 2015-04-01 to 2017-03-31 in CONUS. Other years, climates "
    "and continents are extrapolation; what two years show of another one is in docs/results.md.",
    "Forcing is that of NLDAS-2 in cells of 36 km, or of the station where it measured it; static "
    "attributes are those of cells. Other products have other biases, and were not tried.",
    "A value is the daily mean of the top 5 cm at a point. Most of its error at a site is a "
    "constant offset, which a few weeks of observations there remove: soilweave score --adjust.",
    "Values on days with frozen soil were neither learnt nor scored.",
)


def main(
    experiment: Annotated[Path, typer.Argument(help="The folder of the experiment that was run.")],
    sites: Annotated[str, typer.Option(help="Its sites, to score with the inputs of cells, too.")],
    into: Annotated[Path, typer.Option(help="Folder of the shipped models.")] = PRESETS,
) -> None:
    """Write the folder of the shipped models anew."""
    packed = pack(Workspace(str(experiment.absolute())), into, sites)
    size = sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
    print(f"{packed}: {size / 1e6:.2f} MB")


def pack(source: Workspace, into: Path, sites: str) -> Path:
    """Write the models of an experiment into `into`/NAME, and return this folder."""
    experiment = content.check_publishable(source)
    target = into / experiment.name
    shutil.rmtree(target, ignore_errors=True)
    home = Workspace(str(target))
    keys = [f"{ARM}/calibration.json", "ridge/fold=all/ridge.safetensors", "attributes.json"]
    keys += [
        f"{ARM}/fold=all/seed={seed}/checkpoint.safetensors"
        for seed in models.list_seeds(source.url("models"), ARM)
    ]
    manifest = source.artefact("models").manifest()
    kept = [record for record in manifest["shards"] if record["key"] in keys]
    assert len(kept) == len(keys), (keys, kept)
    for name in ("experiment.yaml", "folds.parquet", *(f"models/{key}" for key in keys)):
        files.write_bytes(home.url(name), files.read_bytes(source.url(name)))
    record = {key: manifest[key] for key in MANIFEST_KEYS if key in manifest}
    digests = {each["key"]: each["sha256"] for each in kept}
    # The inputs are those of all models; these are some of them, perhaps in other roundings.
    record["identity"] = files.sha256_of_json([manifest["inputs_sha256"], digests])
    files.write_json(
        home.url("models", "manifest.json"),
        records.seal(record | {"shards": kept, "empty": []}, "models"),
    )
    files.write_json(home.url(known_models.OFFSETS), offsets(experiment, source))
    card = describe(experiment, source, kept) | {"with_cells": score_with_cells(source, sites)}
    card = redact_tree(card)
    text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    files.write_bytes(home.url("card.json"), text.encode())
    files.write_bytes(home.url("card.md"), to_markdown(card).encode())
    return target


def offsets(experiment, source) -> dict:
    """The prior of the offset of a new site, by arm and baseline."""
    cube, folds = Cube.of(experiment, source), tables.read_table(source.url("folds.parquet"))
    priors = bias_adjustment.learn_priors(experiment, source, cube, folds)
    names = (ARM, "ridge", bias_adjustment.SATELLITE_BASELINE)
    return {name: priors[name][models.ALL_SITES]._asdict() for name in names if name in priors}


def score_with_cells(source, sites) -> dict:
    """Scores at the sites of an experiment, held out, with the inputs of the nearest cells."""
    settings = {"inputs_from": "cell", "models": source.url("models")}
    experiment = source.described().model_copy(update=settings)
    found = probes.score_probes(
        experiment, source, SilentProgress(), sites, nearest_km=FARTHEST_CELL_KM
    ).summary
    scores = found["out_of_fold"]["arms"][ARM]
    return {
        "nearest_km": FARTHEST_CELL_KM,
        "sites": scores["n_sites"],
        **{m: {"median": scores["median"][m], "ci95": scores["ci95"][m]} for m in WITH_CELLS},
    }


def describe(experiment, source, kept) -> dict:
    """The content of the card: that of a release, of these models alone."""
    full = model_card.describe(experiment, source, scored=True)
    members = len(full["arms"][ARM]["checkpoints"])
    months = [day[:7] for day in full["training_period"]]
    return {
        "name": experiment.name,
        "title": f"{members} members of arm {ARM}: {experiment.title.partition(',')[0]}, "
        f"{months[0]} to {months[1]}",
        "version": pipeline.__version__,
        "license": "Apache-2.0",
        "arm": {"name": ARM} | full["arms"][ARM],
        **{key: full[key] for key in CARD_KEYS},
        "held_out": full["held_out"],
        "calibration": json.loads(files.read_bytes(source.url(f"models/{ARM}/calibration.json"))),
        "scores": full["scores"],
        "limits": [*full["limits"][:1], *LIMITS] if experiment.planet else [*LIMITS],
        "code_commit": source.artefact("models").manifest().get("git_commit"),
        "made_from": {k: v for k, v in full["made_from"].items() if k in ("models", "cube")},
        "files": kept,
    }


def to_markdown(card: dict) -> str:
    """The card as a page."""
    predicts, arm, recipe = card["predicts"], card["arm"], card["recipe"]
    made = card["made_from"]["models"]["made"][:10]
    lines = [
        f"# Models `{card['name']}`",
        "",
        f"They predict `{predicts['variable']}` ({predicts['long_name']}, {predicts['units']}) as "
        f"{predicts['what']}.",
        "",
        f"- **Models**: {card['title']}",
        f"- **Learnt from**: {'; '.join(arm['learnt_from'])}",
        f"- **Days**: {' to '.join(card['training_period'])}",
        f"- **Recipe**: {recipe['name']}, {recipe['updates']} updates a member; tuned on "
        f"{recipe['tuned_on']}",
        f"- **Held out for the scores and the calibration**: {card['held_out']}",
        f"- **Calibration of the shipped ensemble**, from held-out sites: level weight "
        f"{card['calibration']['all']['level_weight']:.2f}, standard deviation times "
        f"{card['calibration']['all']['width_scale']:.2f}",
        f"- **Made** with soilweave {card['version']}, commit {card['code_commit']}, {made}",
        f"- **Licence of the weights**: {card['license']}, as soilweave",
        "",
        "Use: `soilweave score FILE.csv`, `soilweave predict EXPERIMENT --models scan`. Make them "
        "again: `make weights`.",
        "",
        "## Data",
        "",
        "| entry | licence | DOI | period |",
        "|---|---|---|---|",
    ]
    for name, entry in card["data"].items():
        columns = (entry.get(key, "") for key in ("license", "doi", "period"))
        lines.append(f"| {name} | {' | '.join(map(str, columns))} |")
    lines += ["", "## Scores", "", *model_card.score_lines(card["scores"])]
    lines += [*_in_words(card), ""]
    lines += ["## Limits", "", *(f"- {sentence}" for sentence in card["limits"]), ""]
    lines += ["## Files", "", "| file in models/ | bytes | SHA-256 |", "|---|---|---|"]
    lines += [f"| {each['key']} | {each['size']} | `{each['sha256']}` |" for each in card["files"]]
    return "\n".join([*lines, ""])


def _in_words(card) -> list[str]:
    """The strongest rival, and the scores with the inputs of cells."""
    scores, cells = card["scores"]["held-out sites"], card["with_cells"]
    others = {k: v for k, v in scores["by_name"].items() if k != ARM}
    rival = max(others, key=lambda name: others[name]["correlation"]["median"])
    paired = scores["paired"][f"{ARM}-{rival}"]
    told = [
        f"{label} {paired[m]['median_difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
        for m, label in (("correlation", "R"), ("rmse", "RMSE"))
        for low, high in (paired[m]["ci95"],)
    ]
    with_cells = [
        f"{label} {cells[m]['median']:.3f} [{low:.3f}, {high:.3f}]"
        for m, label in (("correlation", "R"), ("rmse", "RMSE"))
        for low, high in (cells[m]["ci95"],)
    ]
    return [
        f"The strongest rival in R is `{rival}`; `{ARM}` minus it: {' and '.join(told)}. An "
        "interval that includes zero is a tie.",
        "",
        f"With the inputs of the nearest cell, up to {cells['nearest_km']:.0f} km away, instead of "
        f"the site's own, as `soilweave score FILE.csv --nearest {cells['nearest_km']:.0f}` takes "
        f"them, `{ARM}` has {' and '.join(with_cells)} at {cells['sites']} held-out sites.",
    ]


if __name__ == "__main__":
    typer.run(main)
