"""Write the report of an experiment: one self-contained HTML page, report.html.

Scores, maps and manifests go in. This module puts the sections of the page together, and writes
those in words: the headline, what was evaluated, the data with their quality control, and the
provenance of every artefact. The template of the page is page.html.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from datetime import datetime
from typing import TYPE_CHECKING

import yaml

import pipeline
from pipeline import files
from pipeline.catalog.products import product_name
from pipeline.errors import StoreError, redact_urls
from pipeline.evaluate.report import maps as report_maps
from pipeline.evaluate.report import scores as report_scores
from pipeline.evaluate.report import series, strata, style
from pipeline.evaluate.report.map_fields import MapFields
from pipeline.evaluate.report.style import ABSENT, format_count, format_number, format_period
from pipeline.evaluate.report.style import metric_decimals as style_digits
from pipeline.experiment.config import SATELLITE_BASELINE, reference_arm, shown_settings
from pipeline.storage import artefacts, ensemble, missing_values, models, schema, tables
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from pipeline.evaluate.report.map_fields import Frame
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


PACKAGES = ("soilweave", "ray", "torch")
PAGE = "report.html"


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the report from the scores, and from the maps if there are any.

    Raises:
      StoreError: If there are no scores yet, or an artefact was made with other settings.
    """
    artefact = workspace.artefact("report")
    maps = workspace.artefact("maps")
    digests = {
        "scores": workspace.artefact("scores").digest(experiment),
        "maps": maps.digest(experiment) if maps.manifest() else "none",
        "models": models.find_models(experiment, workspace)[1],
    }
    inputs = schema.identity(experiment, "report", **digests)
    progress.start("report", 1, "page")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("report complete")
        return
    artefact.begin(inputs)
    workspace.describe(experiment)
    html = _render(_page_content(experiment, workspace, digests["maps"] != "none"))
    files.write_bytes(workspace.url(PAGE), html.encode())
    artefact.commit(inputs, [artefacts.shard_record(workspace.root, PAGE)])
    progress.finish(f"report.html, {len(html) / 1e6:.1f} MB")


def _page_content(experiment: Experiment, workspace: Workspace, has_maps: bool) -> Json:
    """Return the variables of the template, by section; a section without content is empty."""
    summary = files.read_json(workspace.url("summary.json"))
    if summary is None:
        hint = "write it again with: soilweave evaluate --overwrite"
        raise StoreError(workspace.url("summary.json"), "not found", remedy=hint)
    cube = Cube.of(experiment, workspace)
    scores = tables.read_table(workspace.url("scores.parquet"))
    unit = style.format_units(experiment.table[experiment.target].units)
    region = report_maps.map_frame(experiment, cube)
    return {
        "title": experiment.title,
        "name": experiment.name,
        "unit": unit,
        "first": style.label(report_maps.main_arm(experiment)),
        "headline": headline(summary, unit),
        "facts": facts(experiment, summary),
        "notes": notes(experiment, summary) + outlier_warnings(experiment, workspace),
        "maps": report_maps.maps_section(MapFields(experiment, workspace, cube), region)
        if has_maps
        else None,
        "tables": report_scores.score_tables(summary),
        "paired": report_scores.paired_section(summary, unit),
        "boxes": report_scores.box_plots(summary, scores, unit),
        "strata": strata.strata_section(summary, unit),
        "triple": strata.triple_collocation_rows(summary),
        "trust": report_scores.coverage_section(summary),
        "siting": report_maps.next_probes_section(experiment, workspace, region)
        if has_maps
        else None,
        "footprints": report_scores.footprint_rows(summary),
        **_site_sections(experiment, workspace, cube, scores, region),
        "curves": series.loss_curves(experiment, workspace),
        "quality": data_quality(experiment, workspace),
        "provenance": provenance(experiment, workspace),
        "opened": opening_code(experiment, workspace, has_maps),
    }


def _site_sections(
    experiment: Experiment, workspace: Workspace, cube: Cube, scores: pd.DataFrame, region: Frame
) -> Json:
    """Return the sections with a map and time series of sites; empty if no site was scored."""
    if not (scores.target == "site").any():
        return {"sites": None, "series": []}
    return {
        "sites": report_maps.sites_section(experiment, scores, cube, region),
        "series": series.site_series(experiment, workspace, cube, scores),
    }


def _render(content: Json) -> str:
    """Render the page; texts from the experiment are escaped for HTML."""
    import jinja2

    folder = importlib.resources.files("pipeline.evaluate.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css = folder.joinpath("page.css").read_text(encoding="utf-8")
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(css=css, **content)


def headline(summary: Json, unit: str) -> str:
    """Return the main result in one sentence: scores of the reference arm and of the satellite.

    The scores are those against the truth if it is known, else those at sites, else those of arm
    satellite at footprints.
    """
    for key, judged in (("truth", summary.get("truth", {})), ("sites", summary)):
        if not judged.get("arms"):
            continue
        arms, baselines = judged["arms"], judged["baselines"]
        name = reference_arm([*arms])
        if key == "truth":
            where = f"At {format_count(judged['n_cells'])} cells away from every site"
        elif summary["place"] == "seen":
            where = f"At {format_count(judged['n_sites'])} sites"
        else:
            where = f"At {format_count(judged['n_sites'])} held-out sites"
        against = " against the truth" if key == "truth" else ""
        sentence = f"{where}, {style.label(name)} has {_format_scores(arms[name], unit)}{against}"
        if SATELLITE_BASELINE in baselines:
            sentence += (
                f"; the satellite itself has {_format_scores(baselines[SATELLITE_BASELINE], unit)}"
            )
        return sentence + "."
    seeds = summary.get("footprints", {}).get("all", {})
    described = seeds.get("ensemble") or next(iter(seeds.values()), None)
    if described is None:
        return "There are no scores."
    n = format_count(described["n_footprints"])
    days = "unseen days" if summary["time"] == "unseen" else "days of the training period"
    scores = _format_scores(described, unit)
    return f"At {n} footprints, {style.label('satellite')} has {scores} on {days}."


def facts(experiment: Experiment, summary: Json) -> list[tuple[str, str]]:
    """Return the terms and values that describe the evaluation."""
    seeds = f"{summary['n_seeds']} seed{'s' if summary['n_seeds'] > 1 else ''}"
    updates, epochs = summary["updates"], experiment.train.epochs
    length = f"{epochs:,} epochs" if updates is None else f"{updates:,} updates"
    return [
        ("evaluated at", f"{summary['place']} places, {summary['time']} time"),
        ("folds", experiment.folds.layout),
        ("training period", format_period(experiment.train_period)),
        ("test period", format_period(experiment.test_period)),
        ("recipe", f"{summary['recipe']}, {length}, {seeds}"),
        ("scored with at least", f"{summary['min_days']} days with both values"),
    ]


def notes(experiment: Experiment, summary: Json) -> list[str]:
    """Return caveats, each a sentence, that a reader must know to judge the scores."""
    sentences = []
    if experiment.tuned_on and experiment.planet is None:
        sentences.append(
            f"The settings of recipe {experiment.recipe} were chosen on "
            f"{experiment.tuned_on}: scores there are not scores on untouched data."
        )
    if set(experiment.arms) != {"insitu"} and experiment.folds.kind != "none":
        used = "are not used" if experiment.folds.drop_footprints else "are used"
        sentences.append(
            f"Satellite data of footprints that contain a held-out site {used} in training."
        )
    if entries := ", ".join(summary.get("statics_of_unknown_period", ())):
        sentences.append(f"The period that the statics of {entries} describe is unknown.")
    if products := ", ".join(map(product_name, experiment.baselines)):
        sentences.append(f"Products ({products}) are evaluated with their grid cell at each site.")
    if n := len({row["id"] for row in summary.get("not_scored", ())}):
        sentences.append(f"Sites with too few days to score some arm or baseline: {n}.")
    return sentences


def outlier_warnings(experiment: Experiment, workspace: Workspace) -> list[str]:
    """Return a warning for each member of an ensemble that is far from the other members."""
    root, _ = models.find_models(experiment, workspace)
    manifest = artefacts.Artefact("models", f"{root}/").manifest() or {}
    return [
        f"Warning: {ensemble.outlier_warning(member)}."
        for member in manifest.get("unlike_members", ())
    ]


def data_quality(experiment: Experiment, workspace: Workspace) -> Json:
    """Return the numbers of values dropped and missing, and the catalog entries that were read."""
    sources = workspace.prepared(experiment).artefact("cube"), workspace.artefact("scores")
    manifests = [artefact.manifest() or {} for artefact in sources]
    dropped = []
    for rule, n in (item for m in manifests for item in m.get("dropped", {}).items()):
        source, _, name = rule.partition(": ")
        dropped.append({"source": source, "rule": name.replace("_", " "), "n": format_count(n)})
    entries = [
        {"name": name} | {k: entry.get(k, ABSENT) for k in ("license", "doi", "time_convention")}
        for manifest in manifests
        for name, entry in manifest.get("entries", {}).items()
    ]
    return {"dropped": dropped, "missing": _missing_values(manifests[0]), "entries": entries}


def _missing_values(manifest: Json) -> list[Json]:
    """Return the number of missing values of every variable, from the manifest of the cube."""
    return [
        {
            "where": where,
            "variable": name.replace("_", " "),
            "n": format_count(record["n"]),
            "share": f"{100 * record['n'] / max(record['of'], 1):.3g}",
            "days": format_count(missing_values.count_incomplete_days(record))
            if "days" in record
            else ABSENT,
            "infinite": format_count(record["infinite"]),
        }
        for where in ("cells", "footprints", "sites")
        for name, record in manifest.get("missing", {}).get(where, {}).items()
    ]


def provenance(experiment: Experiment, workspace: Workspace) -> Json:
    """Return the artefacts with digest, commit and duration; versions; and the experiment."""
    described = yaml.safe_dump(shown_settings(experiment), sort_keys=False)
    rows = list(_artefact_rows(experiment, workspace))
    longest = max((row["seconds"] for row in rows), default=0)
    for row in rows:
        row["share"] = round(100 * row["seconds"] / longest, 1) if longest else 0
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "artefacts": rows,
        "versions": versions,
        "yaml": described,
        "root": redact_urls(workspace.root),
    }


def _version(name: str) -> str:
    """Return the version of a package; a dash if the package is not installed."""
    if name == "soilweave":  # a job on a cluster runs it without installing it
        return pipeline.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def _artefact_rows(experiment: Experiment, workspace: Workspace) -> Iterator[Json]:
    """Yield a row of the table of artefacts for each complete artefact but the report."""
    for name in artefacts.ARTEFACTS:
        owner = workspace.prepared(experiment) if name in ("planet", "cube") else workspace
        manifest = owner.artefact(name).manifest()
        if manifest is None or name == "report":
            continue
        begun, created = manifest.get("begun"), datetime.fromisoformat(manifest["created"])
        seconds = (created - datetime.fromisoformat(begun)).total_seconds() if begun else 0.0
        size = sum(shard["size"] for shard in manifest["shards"])
        yield {
            "name": name,
            "digest": manifest["inputs_sha256"][:12],
            "commit": (manifest["git_commit"] or ABSENT)[:10],
            "finished": f"{created:%Y-%m-%d %H:%M} UTC",
            "size": f"{size / 1e6:,.1f}",
            "seconds": seconds,
            "duration": _format_duration(seconds) if begun else ABSENT,
        }


def _format_duration(seconds: float) -> str:
    """Format a duration in minutes and seconds."""
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes} min {remainder} s" if minutes else f"{remainder} s"


def _format_scores(described: Json, unit: str) -> str:
    """Format the median R and RMSE, to two significant figures."""
    r, rmse = described["median"]["correlation"], described["median"]["rmse"]
    decimals = max(style_digits("rmse", [described]) - 1, 0)
    error = " ".join(filter(None, (format_number(rmse, decimals), unit)))
    parts = (f"R {format_number(r, 2)}", f"RMSE {error}")
    return " and ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)


def opening_code(experiment: Experiment, workspace: Workspace, has_maps: bool) -> list[str]:
    """Return lines of Python that open the outputs of the experiment."""
    root, target = workspace.root, experiment.target
    lines = ["import pandas as pd, xarray as xr"]
    if has_maps:
        arm = "multiscale" if "multiscale" in experiment.arms else experiment.arms[0]
        lines.append(f'xr.open_zarr("{root}/maps/{arm}.zarr").{target}.isel(time=100).plot()')
    else:
        cube = workspace.prepared(experiment).url("cube.zarr")
        lines.append(f'xr.open_zarr("{cube}", group="cells")  # inputs of the models')
    if files.exists(workspace.url("scores.parquet")):
        lines.append(f'pd.read_parquet("{root}/scores.parquet")  # scores of every place')
    return lines
