"""What `export` has made in an experiment's folder, as assets in STAC."""

from __future__ import annotations

import json
from pathlib import Path

import publishing
import rasterio
import stac_schemas

from pipeline import publish
from pipeline.export import Options, export
from pipeline.progress import SilentProgress
from pipeline.storage import publications

MONTHS = {"insitu": "EPSG:4326", "satellite": "EPSG:6933"}  # of what is exported


def released(workspace, to):
    """Publish; gives the folder of the release and the assets of each arm's item."""
    publish.publish(workspace, str(to), SilentProgress())
    folder = Path(publications.find_release(str(to)).url)
    items = {arm: json.loads((folder / f"items/{arm}.json").read_text()) for arm in publishing.ARMS}
    for item in items.values():
        stac_schemas.validate(item)
    return folder, {arm: item["assets"] for arm, item in items.items()}


def test_files_that_show_the_maps_are_assets_and_stale_ones_are_not(workspace, tmp_path):
    folder = workspace.url("export")
    for arm, crs in MONTHS.items():
        month = Options("cog", arm, "2019-12-01..2019-12-31", "month", crs)
        export(workspace.root, folder, month, SilentProgress())
    export(workspace.root, folder, Options("netcdf", "insitu"), SilentProgress())
    points = tmp_path / "mine.csv"
    points.write_text("lat,lon\n{},{}\n".format(*middle(workspace)))
    export(workspace.root, folder, Options("csv", "insitu", places=str(points)), SilentProgress())
    release, assets = released(workspace, tmp_path / "p")
    tiffs = [f"snow_{{}}_snow_depth{flag}_2019-12.tif" for flag in ("", "_quality_flag")]
    years = [f"snow_insitu_snow_depth_{year}.nc" for year in (2019, 2020)]
    maps = {"maps", "series"}
    assert {*assets["multiscale"]} == maps
    assert {*assets["satellite"]} == {*maps, *(name.format("satellite") for name in tiffs)}
    # A table at places of the user is no part of a release.
    assert {*assets["insitu"]} == {*maps, *years, *(name.format("insitu") for name in tiffs)}
    for arm, crs in MONTHS.items():
        for name in (name.format(arm) for name in tiffs):
            check_tiff(release, assets[arm][name], crs)
    year = assets["insitu"][years[0]]
    assert (year["type"], year["start_datetime"]) == ("application/netcdf", "2019-11-20T00:00:00Z")
    assert year["end_datetime"] == "2019-12-31T23:59:59Z"
    for path in release.rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), path
    # Publishing again sends nothing; new maps leave the files out, and a new export brings them.
    assert released(workspace, tmp_path / "p")[0] == release
    publishing.fill_maps(workspace, 7, ["insitu"])
    _, assets = released(workspace, tmp_path / "p")
    assert {*assets["insitu"]} == maps
    assert len(assets["satellite"]) == 4
    Path(folder, tiffs[0].format("satellite")).unlink()
    again = Options("netcdf", "insitu", "2020-01-01..")
    export(workspace.root, folder, again, SilentProgress())
    _, assets = released(workspace, tmp_path / "p")
    assert {*assets["insitu"]} == {*maps, years[1]}
    assert len(assets["satellite"]) == 3


def middle(workspace):
    """A place in the maps."""
    opened = publications.open_maps(workspace.root)
    return float(opened.lat.mean()), float(opened.lon.mean())


def check_tiff(release, asset, crs):
    """The asset says of the file what the file says."""
    assert asset["href"].startswith("../export/")
    with rasterio.open(release / "items" / asset["href"]) as file:
        assert file.crs.to_string() == asset["proj:code"] == crs
        assert [*file.shape] == asset["proj:shape"]
        assert [*file.transform][:6] == asset["proj:transform"]
        assert [*file.bounds] == asset["proj:bbox"]
        assert [*file.descriptions] == [band["name"] for band in asset["bands"]]
    flags = asset["bands"][0]["name"] == "quality_flag"
    assert asset["roles"] == ["data-mask" if flags else "data"]
