"""Describe a release in STAC, so that catalogs and readers of geodata find it.

  collection.json: the experiment: extent, licence, creator, how to cite it; report, scores, model
    card and tables as assets.
  items/{arm}.json: the maps of an arm, as a data cube over all of its days; the Zarr store, its
    group `series`, and the files that `export` has made of them as assets.

All links are relative, and none leads out of the release, so a copy of its folder is complete.
`latest.json` of a publication is a STAC catalog whose only child is the collection of the latest
release: one object is switched, hence a reader who follows it sees one release.

What the settings do not state, such as the licence, is described as not stated.

The extensions are datacube, projection, scientific and zarr.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

import pystac
from pystac.extensions import datacube, projection, scientific

from pipeline.experiment.config import experiment_window
from pipeline.storage import publications, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.grid.ease import Window
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.exports import Exported


ZARR_EXTENSION = "https://stac-extensions.github.io/zarr/v1.0.0/schema.json"
ZARR = "application/vnd.zarr; version=3"
PARQUET, CSV, MARKDOWN, YAML = (
    "application/vnd.apache.parquet",
    "text/csv",
    "text/markdown",
    "application/yaml",
)
ZIP = "application/zip"
EXPORT_TYPES = {"cog": pystac.MediaType.COG, "netcdf": "application/netcdf"}  # by format
QUALITY_FLAG = "quality_flag"
GRID_EPSG = 6933
DEGREE_DECIMALS = 6
ROOT = "/release"  # stands for the release's folder, which only relative links are made from

# Assets of the collection: key, name, media type, role and title; those that a release has.
ASSETS = (
    ("report.html", "report", pystac.MediaType.HTML, "overview", "Report: maps and scores"),
    ("card.md", "card", MARKDOWN, "metadata", "Model card: data, licences, scores, limits"),
    ("card.json", "card_json", pystac.MediaType.JSON, "metadata", "Model card as JSON"),
    ("scores.parquet", "scores", PARQUET, "metadata", "Scores of every site and place"),
    ("site_scores.csv", "site_scores", CSV, "metadata", "Scores of every site, for spreadsheets"),
    ("summary.json", "summary", pystac.MediaType.JSON, "metadata", "Medians and intervals"),
    ("collocated.zip", "collocated", ZIP, "data", "Observations and predictions at the sites"),
    ("folds.geojson", "folds", pystac.MediaType.GEOJSON, "metadata", "Sites held out together"),
    ("sites.geojson", "sites", pystac.MediaType.GEOJSON, "data", "Sites, and their series"),
    ("next_probes.csv", "next_probes", CSV, "data", "Where further probes would help most"),
    ("experiment.yaml", "settings", YAML, "metadata", "Settings of the experiment"),
    ("intake.yaml", "intake", YAML, "metadata", "Intake catalog that opens the maps"),
    ("README.txt", "readme", pystac.MediaType.TEXT, "metadata", "How to read and cite the maps"),
)


def stac_files(
    experiment: Experiment,
    workspace: Workspace,
    through: str,
    keys: Sequence[str],
    exported: Sequence[Exported] = (),
) -> Iterator[tuple[str, bytes]]:
    """Yield the key and content of the collection and of its items.

    Args:
      experiment: The experiment, whose `product` states licence, creator and references.
      workspace: Its folder in the workspace, with complete maps.
      through: The last day of the maps.
      keys: The keys of all other objects of the release.
      exported: Those that `export` has made.
    """
    items = [_item(experiment, workspace, arm, through) for arm in experiment.arms]
    for item, arm in zip(items, experiment.arms, strict=True):
        for file in (file for file in exported if file.record["arm"] == arm):
            item.add_asset(file.key.rpartition("/")[2], _exported_asset(file))
    collection = _collection(experiment, items)
    collection.add_items(items)
    collection.set_self_href(f"{ROOT}/{publications.COLLECTION}")
    for item in items:
        item.set_self_href(f"{ROOT}/items/{item.properties['soilweave:arm']}.json")
    for key, name, media_type, role, title in ASSETS:
        if key in keys:
            asset = pystac.Asset(f"./{key}", title, media_type=media_type, roles=[role])
            collection.add_asset(name, asset)
    for each in (collection, *items):
        content = each.to_dict(include_self_link=False)
        yield each.self_href.removeprefix(f"{ROOT}/"), _encode(content)


def citation(experiment: Experiment, year: str) -> str:
    """Return how to cite the maps, in one line.

    Args:
      experiment: The experiment.
      year: The year in which the maps were made.
    """
    product = experiment.product
    where = f" https://doi.org/{product.doi}" if product.doi else ""
    creator = product.creator or "Creator not stated"
    return f"{creator} ({year}): {experiment.title} (experiment {experiment.name}).{where}"


def made_in(workspace: Workspace) -> str:
    """Return the year in which the maps of an experiment were made."""
    manifest = workspace.artefact("maps").manifest() or {}
    return str(manifest.get("created", ""))[:4]


def _collection(experiment: Experiment, items: Sequence[pystac.Item]) -> pystac.Collection:
    """Return the collection, without links and assets."""
    product, variable = experiment.product, experiment.table[experiment.target]
    about = (
        f"Daily maps of {variable.long_name} ({variable.units}) with the standard deviation of the "
        f"error and quality flags, from soilweave; an item for each arm. Licence: "
        f"{product.stated_license}. Creator: {product.stated_creator}. The licences of the data "
        "that the maps were made from are in the model card."
    )
    space = pystac.SpatialExtent([items[0].bbox or []])
    days = [pystac.utils.str_to_datetime(items[0].properties[k]) for k in _RANGE]
    collection = pystac.Collection(
        experiment.name,
        about,
        pystac.Extent(space, pystac.TemporalExtent([[*days]])),
        title=experiment.title,
        license=product.license or "other",
        keywords=[experiment.target, "daily", "EASE-Grid 2.0", experiment.recipe],
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
    )
    if product.creator:
        role = pystac.ProviderRole.PRODUCER
        collection.providers = [
            pystac.Provider(product.creator, roles=[role], url=product.creator_url)
        ]
    cited = scientific.ScientificExtension.ext(collection, add_if_missing=True)
    cited.citation = citation(experiment, str(items[0].properties["created"])[:4])
    if product.doi:
        cited.doi = product.doi
    if product.references:
        publications_ = [{"citation": reference} for reference in product.references]
        collection.extra_fields["sci:publications"] = publications_
    return collection


_RANGE = ("start_datetime", "end_datetime")


def _item(experiment: Experiment, workspace: Workspace, arm: str, through: str) -> pystac.Item:
    """Return the item of an arm's maps."""
    window = experiment_window(experiment)
    lat, lon = (edges.round(DEGREE_DECIMALS).tolist() for edges in window.cell_edges)
    west, south, east, north = lon[0], lat[-1], lon[-1], lat[0]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    manifest = workspace.artefact("maps").manifest() or {}
    last = datetime.combine(date.fromisoformat(through), time(23, 59, 59), UTC)
    item = pystac.Item(
        f"{experiment.name}-{arm}",
        {"type": "Polygon", "coordinates": [ring]},
        [west, south, east, north],
        None,
        {
            "title": f"Daily {experiment.target} of {experiment.name}, arm {arm}",
            "created": _utc(manifest.get("created", "1970-01-01T00:00:00+00:00")),
            "gsd": round(_cell_size(window), 3),
            "soilweave:arm": arm,
        },
        start_datetime=datetime.combine(experiment.period[0], time(), UTC),
        end_datetime=last,
    )
    _add_projection(item, window)
    _add_datacube(item, window, workspace.url("maps", f"{arm}.zarr"), experiment, through)
    item.stac_extensions.append(ZARR_EXTENSION)
    folder = f"../maps/{arm}.zarr"
    item.add_asset("maps", _zarr_asset(folder, "Maps, chunked by day", True))
    item.add_asset("series", _zarr_asset(f"{folder}/series", "Maps, chunked by cell", False))
    return item


def _zarr_asset(href: str, title: str, consolidated: bool) -> pystac.Asset:
    """Return the asset of a group of a Zarr store."""
    fields = {"zarr:zarr_format": 3, "zarr:node_type": "group", "zarr:consolidated": consolidated}
    return pystac.Asset(href, title, media_type=ZARR, roles=["data"], extra_fields=fields)


def _exported_asset(exported: Exported) -> pystac.Asset:
    """Return the asset of a file that `export` has made, with its days and its own grid."""
    record = exported.record
    layers = record.get("layers", [])
    first, last = (date.fromisoformat(record[key]) for key in ("first", "last"))
    days = str(first) if first == last else f"{first} to {last}"
    what = "quality flags" if QUALITY_FLAG in layers else "maps"
    fields: Json = {
        "start_datetime": _stamp(datetime.combine(first, time(), UTC)),
        "end_datetime": _stamp(datetime.combine(last, time(23, 59, 59), UTC)),
    }
    if "transform" in record:
        size_x, _, left, _, size_y, top = record["transform"]
        rows, columns = record["shape"]
        fields |= {
            "proj:code": record["crs"],
            "proj:shape": [rows, columns],
            "proj:transform": record["transform"],
            "proj:bbox": [left, top + rows * size_y, left + columns * size_x, top],
            "bands": [{"name": layer} for layer in layers],
        }
    return pystac.Asset(
        f"../{exported.key}",
        f"{'GeoTIFF' if layers else 'NetCDF'}, {what}, {days}",
        media_type=EXPORT_TYPES[record["format"]],
        roles=["data-mask" if QUALITY_FLAG in layers else "data"],
        extra_fields=fields,
    )


def _add_projection(item: pystac.Item, window: Window) -> None:
    left, _, _, top = window.bounds
    size = _cell_size(window)
    projection.ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=f"EPSG:{GRID_EPSG}",
        bbox=[*window.bounds],
        shape=[*window.cell_shape],
        transform=[size, 0.0, left, 0.0, -size, top],
    )


def _add_datacube(
    item: pystac.Item, window: Window, url: str, experiment: Experiment, through: str
) -> None:
    """Add the dimensions of the maps, and the variables that have no others."""
    days = [f"{day}T00:00:00Z" for day in (experiment.period[0], through)]
    horizontal = {
        axis: {
            "type": "spatial",
            "axis": axis,
            "extent": [float(values.min()), float(values.max())],
            "step": step * _cell_size(window),
            "reference_system": GRID_EPSG,
        }
        for axis, values, step in (("x", window.cell_x, 1), ("y", window.cell_y, -1))
    }
    dimensions = {"time": {"type": "temporal", "extent": days, "step": "P1D"}} | horizontal
    variables: dict[str, datacube.Variable] = {}
    for name, found in sorted(zarr_arrays.open_group(url, "").variables.items()):
        if name in dimensions or not found.dims or not {*found.dims} <= dimensions.keys():
            continue
        kind = "data" if {"y", "x"} <= {*found.dims} else "auxiliary"
        about: Json = {"dimensions": [*found.dims], "type": kind}
        about |= {"description": found.attrs["long_name"]} if "long_name" in found.attrs else {}
        about |= {"unit": found.attrs["units"]} if "units" in found.attrs else {}
        variables[str(name)] = datacube.Variable(about)
    datacube.DatacubeExtension.ext(item, add_if_missing=True).apply(
        {name: datacube.Dimension.from_dict(about) for name, about in dimensions.items()},
        variables,
    )


def _cell_size(window: Window) -> float:
    """Return the side of a cell in metres."""
    left, _, right, _ = window.bounds
    return (right - left) / window.cell_shape[1]


def _utc(stamp: str) -> str:
    """Return a time stamp in the form of STAC, with a final Z."""
    return _stamp(datetime.fromisoformat(stamp).astimezone(UTC))


def _stamp(found: datetime) -> str:
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


def _encode(content: Json) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode()
