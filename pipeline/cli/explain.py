"""The verb `explain`, which says what is known of one value of the maps."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.measure import Measurement
from rich.table import Table

from pipeline.cli import manners, verify
from pipeline.cli.run_stages import DebugOption, NameOption, WorkspaceOption, out
from pipeline.cli.tables import METRIC_HEADINGS
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.files import Json


DIGEST = 12  # characters of a digest that are shown
SATELLITE_ARM = "satellite"
MAX_TABLE_WIDTH = 400  # characters

LatOption = Annotated[float, typer.Option("--lat", help="Latitude in degrees north.")]
LonOption = Annotated[float, typer.Option("--lon", help="Longitude in degrees east.")]
DateOption = Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The UTC day.")]

ArmOption = Annotated[
    str | None,
    typer.Option(help="The arm whose maps are read; by default multiscale, or else the first."),
]


def add_explain_verb(app: typer.Typer) -> None:
    """Add `explain`."""
    app.command()(explain)


def explain(
    experiment: verify.TargetArgument,
    lat: LatOption,
    lon: LonOption,
    day: DateOption,
    arm: ArmOption = None,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    debug: DebugOption = False,
) -> None:
    """Explain the value of a cell on a day, and what it was made from.

    Shows the value with its interval and flags in words, the cell and its footprint, the nearest
    sites with their scores, the inputs of the last days, and what the maps were made from: models,
    catalog entries with licences, digests and commits. Artefacts that were made from others than
    those that are there are named as stale.

    A publication has no inputs; of it, what its latest release has is shown.

    Example: soilweave explain demo --lat 39.12 --lon -101.35 --date 2016-09-22
    """
    from pipeline import explain as explaining

    url = experiment if "://" in experiment else verify.find_store(experiment, workspace, name).root
    answer = explaining.explain(url, lat, lon, _parse_day(day), arm)
    for part in _as_text(answer):
        if isinstance(part, Table):
            # Rich would cut numbers off on a narrow screen, or where there is none.
            wide = out.options.update_width(MAX_TABLE_WIDTH)
            part.width = Measurement.get(out, wide, part).maximum
        out.print(part, markup=False, highlight=False, soft_wrap=True)
    manners.write_json(answer)


def _parse_day(text: str) -> date:
    """Return the day of an option.

    Raises:
      ConfigError: If it is no date.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--date {text}", "expected a day as YYYY-MM-DD") from error


def _as_text(answer: Json) -> Iterator[str | Table]:
    """Yield lines and tables."""
    yield f"{answer['experiment']}, arm {answer['arm']}, {answer['day']}: {answer['title']}"
    yield ""
    yield from _value_lines(answer["value"], answer["arm"])
    yield from _place_lines(answer)
    if answer["sites"]:
        yield _site_table(answer)
    yield from _input_parts(answer["inputs"])
    yield from _origin_lines(answer)


def _value_lines(value: Json, arm: str) -> Iterator[str]:
    """Yield the value, its intervals and its flags, in words."""
    units = value["units"]
    if value["mean"] is None:
        yield f"Value      none ({value['long_name']}, {units})"
    else:
        std = "unknown" if value["std"] is None else f"{value['std']:.4g}"
        yield f"Value      {value['mean']:.4g} {units}, {value['long_name']}"
        yield f"           standard deviation of the error: {std} {units}"
    reads = "a probe at a typical point of the cell would read"
    if arm == SATELLITE_ARM:
        reads = "the satellite, were its footprint the cell, would see"
    for words, level in (("9 cases of 10", "90%"), ("5 cases of 10", "50%")):
        if level in value["intervals"]:
            low, high = value["intervals"][level]
            yield f"           In {words}, {reads} {low:.3f} to {high:.3f} {units}."
    if value["intervals"] and arm != SATELLITE_ARM:
        yield "           That is for one probe. How near the mean of the cell is, is not known."
    if value["mean"] is not None and not value["intervals"]:
        yield "           There is no interval: the models gave no standard deviation."
    if not value["flags"]:
        yield "Flags      none: the value is like those in the evaluation"
    for name, meaning in value["flags"].items():
        yield f"Flag       {name}: {meaning}"
    yield f"Forcing    {value['forcing']} when the day was made"
    for name, layer in value["layers"].items():
        if layer["value"] is not None:
            yield f"           {name} {layer['value']:.3g}: {layer['is']}; {layer['unit']}"


def _place_lines(answer: Json) -> Iterator[str]:
    """Yield the cell and the footprint."""
    from pipeline.explain.subject import format_place

    cell, footprint, units = answer["cell"], answer["footprint"], answer["value"]["units"]
    (lat, lon), bounds = cell["centre"], cell["bounds"]
    yield (
        f"Cell       row {cell['row']}, column {cell['column']}, {cell['side_km']:.3g} km wide; "
        f"centre {format_place(lat, lon)}; from {format_place(bounds['south'], bounds['west'])} to "
        f"{format_place(bounds['north'], bounds['east'])}"
    )
    seen = "no value that day"
    if footprint.get("missing"):
        seen = footprint["missing"]
    elif footprint["observation"] is not None:
        seen = f"the satellite saw {footprint['observation']:.4g} {units} that day"
    lat, lon = footprint["centre"]
    yield (
        f"Footprint  row {footprint['row']}, column {footprint['column']}; centre "
        f"{format_place(lat, lon)}; {seen}"
    )


def _site_table(answer: Json) -> Table:
    """Return the nearest sites, with the scores of the arm there."""
    table = _table(f"Nearest sites, scores of {answer['arm']} there")
    metrics = [m for m in METRIC_HEADINGS if any(m in s["scores"] for s in answer["sites"])]
    for heading in ("site", "km", "fold", *(METRIC_HEADINGS[m] for m in metrics)):
        table.add_column(heading, justify="left" if heading == "site" else "right")
    for site in answer["sites"]:
        here = " (in this cell)" if site["in_this_cell"] else ""
        scores = (site["scores"].get(metric) for metric in metrics)
        shown = ("" if score is None else f"{score:.3f}" for score in scores)
        table.add_row(f"{site['site']}{here}", f"{site['distance_km']:.1f}", str(site["fold"]),
                      *shown)  # fmt: skip
    return table


def _input_parts(inputs: Json) -> Iterator[str | Table]:
    """Yield the inputs of the last days and the attributes of the cell."""
    if "missing" in inputs:
        yield f"Inputs     {inputs['missing']}"
        return
    table = _table("Inputs of the cell")
    table.add_column("forcing", no_wrap=True)
    for day in inputs["days"]:
        table.add_column(day[5:], justify="right", no_wrap=True)
    table.add_column("units", no_wrap=True)
    for name, found in inputs["forcing"].items():
        values = ("-" if value is None else f"{value:.3g}" for value in found["values"])
        table.add_row(name, *values, found["units"])
    yield table
    attributes = (
        f"{name} {found['values']:.4g} {found['units'] if found['units'] != '1' else ''}".rstrip()
        for name, found in inputs["attributes"].items()
        if found["values"] is not None
    )
    yield f"Attributes {', '.join(attributes)}"


def _origin_lines(answer: Json) -> Iterator[str]:
    """Yield what the maps were made from."""
    origin = answer["origin"]
    for problem in origin["stale"]:
        yield f"WARNING    {problem}"
    if (release := origin["release"]) is not None:
        yield f"Release    {release['release']}, as recorded when it was published"
    for name, about in origin["artefacts"].items():
        commit = (about["commit"] or "unknown")[:DIGEST]
        yield f"{name:<10} {about['digest'][:DIGEST]}, made {about['made']} by commit {commit}"
    for update in origin["updates"]:
        yield f"           updated through {update['through']}, {update['made']}"
    members = ", ".join(f"seed {m['seed']}: {m['sha256'][:DIGEST]}" for m in origin["models"])
    yield f"Members    {len(origin['models'])} of arm {answer['arm']} ({members})"
    if (run := origin["mlflow"]) is not None:
        yield f"MLflow     run {run['run']}, models {run['run_of_the_models']} at {run['uri']}"
    yield f"Catalog    {origin['catalog']}"
    for name, entry in origin["entries"].items():
        yield f"           {name}: licence {entry['license']}, DOI {entry['doi']}"
    product = answer["product"]
    yield f"Licence    {product['license']} (of the maps); DOI {product['doi'] or 'not stated'}"
    if not origin["stale"] and release is None:
        names = ", ".join(origin["artefacts"])
        yield f"The digests agree: {names} are those that the maps were made from."


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
