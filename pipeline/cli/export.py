"""The verb `export`, which writes maps as GeoTIFF, NetCDF or tables."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline import files
from pipeline.cli import manners, run_stages, verify
from pipeline.cli.run_stages import DebugOption, NameOption, WorkspaceOption, out
from pipeline.errors import ConfigError

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="An experiment that was run: its folder in the workspace, the URL of this folder, or "
        "the preset or YAML file that it was run from. Or the URL of a publication, or of maps "
        "(maps/ARM.zarr).",
    ),
]

FormatOption = Annotated[str, typer.Option("--format", help="cog, netcdf or csv.")]

ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="Folder, or prefix of a bucket, for the files; by default export/ in the experiment's "
        "folder, which `verify` checks and of which `publish` takes GeoTIFF and NetCDF.",
    ),
]

ArmOption = Annotated[
    str | None, typer.Option(help="The arm; by default multiscale, or else the first.")
]

PeriodOption = Annotated[
    str | None,
    typer.Option(
        metavar="FIRST..LAST",
        help="Days to export, such as 2018-01-01..2018-06-30, 2018-01-01.. for all from then "
        "on, or 2018-01-01 for one; by default all.",
    ),
]

EveryOption = Annotated[
    str | None,
    typer.Option(
        metavar="day|month", help="With cog: a file for each day (default), or for each month."
    ),
]

CrsOption = Annotated[
    str | None,
    typer.Option(
        metavar="CRS",
        help="With cog: EPSG:6933 (default), the grid of the maps, or EPSG:4326, degrees.",
    ),
]

PlacesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="With csv: points (a CSV file with lat, lon and id) or polygons (GeoJSON).",
    ),
]


def add_export_verb(app: typer.Typer) -> None:
    """Add `export`."""
    app.command()(export)


def export(
    experiment: SourceArgument,
    format_: FormatOption,
    to: ToOption = None,
    places: PlacesOption = None,
    every: EveryOption = None,
    crs: CrsOption = None,
    arm: ArmOption = None,
    period: PeriodOption = None,
    workspace: WorkspaceOption = "workspace",
    name: NameOption = None,
    debug: DebugOption = False,
) -> None:
    """Write maps as GeoTIFF, NetCDF or a table, which any program opens.

    cog: Cloud-Optimised GeoTIFF for QGIS, R and GDAL: of each day or month a file with the value
    and its standard deviation, and one with the quality flags.

    netcdf: NetCDF-4 (CF), a file for each calendar year.

    csv: a table of all days at points, or in polygons, where it has means over the cells, weighted
    by area.

    A file is written whole or not at all. Those that are there already are kept, unless their days
    were revised since, by `update` or otherwise; so the same command continues an export that was
    interrupted, and adds new days.

    Example: soilweave export demo --format cog --every month;
    soilweave export s3://bucket/demo --format csv --places fields.geojson --to s3://bucket/tables
    """
    from pipeline import export as exporting

    options = exporting.Options(format_, arm, period, every, crs, places)
    exporting.check(options)
    is_url = "://" in experiment and not experiment.endswith((".yaml", ".yml"))
    if is_url or experiment.rstrip("/").endswith(".zarr"):
        source = files.make_absolute(experiment)
    else:
        source = verify.find_store(experiment, workspace, name).root
    with run_stages.signals_as_exit(), run_stages.show_progress() as progress:
        url = exporting.export(source, to or _own_folder(source), options, progress)
    out.print(f"Files: {url}", markup=False, highlight=False, soft_wrap=True)
    manners.write_json({"url": url})


def _own_folder(source: str) -> str:
    """Return the folder of an experiment for what is exported of it.

    Raises:
      ConfigError: If the maps are not those of an experiment in a workspace.
    """
    from pipeline.storage import exports, publications

    folder, _ = publications.split_store(source.rstrip("/"))
    if publications.find_release(folder) is not None or folder.endswith(publications.STORE):
        problem = "is needed: only the maps of an experiment in a workspace have a folder for it"
        raise ConfigError("--to", problem, remedy="add --to URL, a folder or a prefix of a bucket")
    return files.join(folder, exports.FOLDER)
