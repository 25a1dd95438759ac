"""Write the page a person reads: scores, maps and how they were made, in one file: report.html."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

from pipeline import files, models, schema, store, tables
from pipeline.cube import Cube
from pipeline.errors import StoreError
from pipeline.figures import style
from pipeline.page import about, atlas, judged, lines, siting, strata
from pipeline.page.fields import Fields

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace

PAGE = "report.html"


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the page from the scores, and from the maps where there are any.

    Raises:
      StoreError: there are no scores yet, or an artefact was made with other settings.
    """
    artefact = workspace.artefact("report")
    maps = workspace.artefact("maps")
    made_of = {
        "scores": workspace.artefact("scores").digest(experiment),
        "maps": maps.digest(experiment) if maps.manifest() else "none",
        "models": models.source(experiment, workspace)[1],
    }
    inputs = schema.identity(experiment, "report", **made_of)
    progress.start("report", 1, "page")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("report complete")
        return
    artefact.begin(inputs)
    workspace.describe(experiment)
    html = _rendered(_content(experiment, workspace, made_of["maps"] != "none"))
    files.write_bytes(workspace.url(PAGE), html.encode())
    artefact.commit(inputs, [store.record(workspace.root, PAGE)])
    progress.finish(f"report.html, {len(html) / 1e6:.1f} MB")


def _content(experiment: Experiment, workspace: Workspace, has_maps: bool) -> Json:
    """What the page shows, section by section; None or empty where there is nothing to show."""
    summary = files.read_json(workspace.url("summary.json"))
    if summary is None:
        remedy = "make it anew with: soilweave evaluate --overwrite"
        raise StoreError(workspace.url("summary.json"), "not found", remedy=remedy)
    cube = Cube.open(Cube.source(experiment, workspace)[0])
    scores = tables.read(workspace.url("scores.parquet"))
    unit = style.units(experiment.table[experiment.target].units)
    on = atlas.frame(experiment, cube)
    return {
        "title": experiment.title,
        "name": experiment.name,
        "unit": unit,
        "first": style.label(atlas.reference(experiment)),
        "headline": about.headline(summary, unit),
        "facts": about.facts(experiment, summary),
        "notes": about.notes(experiment, summary) + about.unlike_members(experiment, workspace),
        "maps": atlas.maps_section(Fields(experiment, workspace, cube), on) if has_maps else None,
        "tables": judged.tables(summary),
        "paired": judged.paired(summary, unit),
        "boxes": judged.boxes(summary, scores, unit),
        "strata": strata.strata(summary, unit),
        "triple": strata.triple(summary),
        "trust": judged.trust(summary),
        "siting": siting.next_probes(experiment, workspace, on) if has_maps else None,
        "footprints": judged.footprints(summary),
        **_at_sites(experiment, workspace, cube, scores, on),
        "curves": lines.curves(experiment, workspace),
        "quality": about.quality(experiment, workspace),
        "provenance": about.provenance(experiment, workspace),
        "opened": about.opened(experiment, workspace, has_maps),
    }


def _at_sites(
    experiment: Experiment, workspace: Workspace, cube: Cube, scores: pd.DataFrame, on: Any
) -> Json:
    """Sites on a map and through time, where sites were judged."""
    if not (scores.target == "site").any():
        return {"sites": None, "series": []}
    return {
        "sites": atlas.sites_section(experiment, scores, cube, on),
        "series": lines.series(experiment, workspace, cube, scores),
    }


def _rendered(content: Json) -> str:
    """The page; what an experiment says is escaped."""
    import jinja2

    folder = importlib.resources.files("pipeline.page")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css = folder.joinpath("page.css").read_text(encoding="utf-8")
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(css=css, **content)
