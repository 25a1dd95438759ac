"""Write the report of an experiment: one self-contained HTML page, report.html.

Scores, maps and manifests go in. This module puts the sections of the page together, and writes
those in words: what was evaluated, and the data with their quality control. The template of the
page is page.html.
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.catalog.products import product_name
from pipeline.errors import StoreError
from pipeline.evaluate import site_files, training_spread
from pipeline.evaluate.report import (
    headline,
    missing,
    provenance,
    reliability,
    series,
    strata,
    style,
)
from pipeline.evaluate.report import maps as report_maps
from pipeline.evaluate.report import scores as report_scores
from pipeline.evaluate.report.map_fields import MapFields
from pipeline.evaluate.report.site_table import site_table
from pipeline.evaluate.report.style import ABSENT, format_count, format_period
from pipeline.storage import artefacts, ensemble, missing_values, models, schema, tables
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.evaluate.report.map_fields import Frame
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


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
    units = experiment.table[experiment.target].units
    unit, goal = style.format_units(units), style.UBRMSE_GOALS.get(units)
    region = report_maps.map_frame(experiment, cube)
    return {
        "title": experiment.title,
        "name": experiment.name,
        "unit": unit,
        "first": style.label(report_maps.main_arm(experiment)),
        "headline": headline.headline(summary, unit),
        "goal": None if goal is None else style.format_number(goal, 2),
        "detail": headline.detail(summary, unit),
        "facts": facts(experiment, summary),
        "notes": notes(experiment, summary) + outlier_warnings(experiment, workspace),
        "maps": report_maps.maps_section(MapFields(experiment, workspace, cube), region)
        if has_maps
        else None,
        "tables": report_scores.score_tables(summary),
        "members": members_sentence(summary),
        "n_members": f"Each arm has {format_count(summary['n_seeds'])} "
        + ("members." if summary["n_seeds"] > 1 else "member."),
        "paired": report_scores.paired_section(summary, unit),
        "small": training_spread.spread_warnings(summary),
        "boxes": report_scores.box_plots(summary, scores, unit, goal),
        "strata": strata.strata_section(summary, unit),
        "triple": strata.triple_collocation_rows(summary),
        "trust": report_scores.coverage_section(summary),
        "curves_of_trust": reliability.reliability_curves(summary),
        "siting": report_maps.next_probes_section(experiment, workspace, region)
        if has_maps
        else None,
        "footprints": report_scores.footprint_rows(summary),
        **_site_sections(experiment, workspace, cube, scores, region),
        "curves": series.loss_curves(experiment, workspace),
        "quality": data_quality(experiment, workspace),
        "missing": missing.missing_picture(cube, Cube.manifest(experiment, workspace)),
        "provenance": provenance.provenance(experiment, workspace),
        "opened": provenance.opening_code(experiment, workspace, has_maps),
    }


def _site_sections(
    experiment: Experiment, workspace: Workspace, cube: Cube, scores: pd.DataFrame, region: Frame
) -> Json:
    """Return the sections with a map, a table and time series of sites.

    They are empty if no site was scored.
    """
    if not (scores.target == "site").any():
        return {"sites": None, "series": [], "site_table": None, "density": []}
    arm = report_maps.main_arm(experiment)
    goal = style.UBRMSE_GOALS.get(experiment.table[experiment.target].units)
    manifest = workspace.artefact("scores").manifest() or {}
    has_csv = site_files.SITE_SCORES in {record["key"] for record in manifest.get("shards", ())}
    table = tables.read_site_predictions(workspace, "observation", "prediction", "std")
    return {
        "sites": report_maps.sites_section(experiment, scores, cube, region),
        "site_table": site_table(cube, scores, arm, goal, has_csv),
        "density": reliability.density_pictures(experiment, cube, table, scores),
        "series": series.site_series(experiment, cube, scores, table),
    }


def members_sentence(summary: Json) -> str:
    """Return how many members the medians are of, and what is known of their spread."""
    n = summary["n_seeds"]
    if n == 1:
        return (
            "Each arm is a single member: how much of a difference is due to training is not known;"
            " n_seeds of 2 or more shows it."
        )
    if not summary.get("training_spread"):
        return f"Each arm is the mean of {n} members, whose spread was not recorded."
    return (
        f"Each arm is the mean of {n} members; ± is the standard deviation of the median, or of "
        f"the difference, between single members. The mean of {n} varies less, by about the "
        f"square root of {n}. Against the truth it is not known, as maps are made of means."
    )


def _render(content: Json) -> str:
    """Render the page; texts from the experiment are escaped for HTML."""
    import jinja2

    folder = importlib.resources.files("pipeline.evaluate.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css, script, page = (
        folder.joinpath(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js", "html")
    )
    return environment.from_string(page).render(css=css, script=script, **content)


def facts(experiment: Experiment, summary: Json) -> list[tuple[str, str]]:
    """Return the terms and values that describe the evaluation."""
    seeds = f"{summary['n_seeds']} seed{'s' if summary['n_seeds'] > 1 else ''}"
    updates, epochs = summary["updates"], experiment.train.epochs
    length = f"{epochs:,} epochs" if updates is None else f"{updates:,} updates"
    return [
        ("evaluated at", f"{summary['place']} places, {summary['time']} time"),
        ("folds", provenance.hide_local_folder(experiment.folds.layout)),
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
