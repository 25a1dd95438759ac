"""What a release says of itself in STAC, Intake and README.txt: valid, relative, and it opens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import urljoin

import intake
import jsonschema
import numpy as np
import pystac
import pytest
import stac_schemas
import xarray as xr
import yaml

from pipeline import cli, files, publish
from pipeline.progress import SilentProgress
from pipeline.publish import content
from pipeline.storage import publications
from pipeline.storage.artefacts import Workspace

ARMS = ("multiscale", "insitu", "satellite")
LAST = "2016-12-20"


def read(path):
    return json.loads(Path(path).read_text())


@pytest.fixture
def release(published):
    """The folder of the latest release of the demo."""
    return Path(publications.find_release(published).url)


@pytest.fixture
def elsewhere(published, tmp_path):
    """A copy of that folder alone, under another name."""
    release = publications.find_release(published).url
    return Path(shutil.copytree(release, tmp_path / "a copy"))


def test_all_objects_are_valid_and_the_schemas_can_refuse(published, release):
    names = [*(f"items/{arm}.json" for arm in ARMS), "collection.json"]
    contents = {name: read(release / name) for name in names}
    contents["latest.json"] = read(Path(published, "latest.json"))
    used = {url for found in contents.values() for url in stac_schemas.validate(found)}
    extensions = ("datacube", "projection", "scientific", "zarr")
    assert all(any(f"/{extension}/" in url for url in used) for extension in extensions)
    item = contents["items/insitu.json"]
    spoilt = [
        item | {"bbox": "west"},
        item | {"properties": item["properties"] | {"proj:shape": "24 x 20"}},
        item | {"properties": item["properties"] | {"cube:dimensions": {"x": {"type": "spatial"}}}},
        item | {"assets": {"maps": item["assets"]["maps"] | {"zarr:zarr_format": 4}}},
        contents["collection.json"] | {"sci:doi": 7},
        contents["latest.json"] | {"description": ""},
    ]
    for broken in spoilt:
        with pytest.raises(jsonschema.ValidationError):
            stac_schemas.validate(broken)


def test_links_are_relative_and_lead_to_what_is_there(elsewhere):
    """In a copy of the folder; `self` would be absolute, and is left out."""
    for path in (elsewhere / "collection.json", *(elsewhere / "items").iterdir()):
        found = read(path)
        hrefs = [link["href"] for link in found["links"] if link["rel"] != "cite-as"]
        hrefs += [asset["href"] for asset in found["assets"].values()]
        assert hrefs
        for href in hrefs:
            assert not href.startswith(("/", "http", "file"))
            there = (path.parent / href).resolve()
            assert there.exists(), href
            assert there.is_relative_to(elsewhere.resolve()), href
        assert "self" not in {link["rel"] for link in found["links"]}


def test_a_reader_of_the_root_finds_one_release_and_the_numbers_of_its_maps(published, release):
    catalog = pystac.Catalog.from_file(f"{published}/latest.json")
    (collection,) = catalog.get_children()
    assert collection.self_href == f"{release}/collection.json"
    assert collection.license == "CC-BY-4.0"
    assert [provider.name for provider in collection.providers] == ["A. Group"]
    assert "10.5281/zenodo.1" in collection.extra_fields["sci:citation"]
    items = {item.properties["soilweave:arm"]: item for item in collection.get_items()}
    assert {*items} == {*ARMS}
    item = items["insitu"]
    assets = item.assets
    assert {asset.media_type for asset in assets.values()} == {"application/vnd.zarr; version=3"}
    for name in ("maps", "series"):
        told = assets[name].extra_fields["zarr:consolidated"]
        opened = xr.open_zarr(urljoin(item.self_href, assets[name].href), consolidated=told)
        assert opened.attrs["arm"] == "insitu"
    cube = item.properties["cube:dimensions"]
    for axis in ("x", "y"):
        values = opened[axis].values
        assert cube[axis]["extent"] == pytest.approx([values.min(), values.max()])
        assert cube[axis]["step"] == pytest.approx(values[1] - values[0])
    assert cube["time"]["extent"] == ["2016-03-01T00:00:00Z", f"{LAST}T00:00:00Z"]
    assert item.properties["end_datetime"] == f"{LAST}T23:59:59Z"
    variables = item.properties["cube:variables"]
    root = xr.open_zarr(release / "maps" / "insitu.zarr")
    assert {"soil_moisture", "soil_moisture_std", "quality_flag", "probe_gain"} <= {*variables}
    for name, about in variables.items():
        assert tuple(about["dimensions"]) == root[name].dims
    size, _, left, _, _, top = item.properties["proj:transform"]
    assert left + size / 2 == pytest.approx(root.x.values[0])
    assert top - size / 2 == pytest.approx(root.y.values[0])
    west, south, east, north = item.bbox
    assert west < root.lon.values.min() < root.lon.values.max() < east
    assert south < root.lat.values.min() < root.lat.values.max() < north


def test_the_catalog_of_intake_opens_the_maps_wherever_it_is(elsewhere):
    catalog = intake.open_catalog(str(elsewhere / "intake.yaml"))
    root = xr.open_zarr(elsewhere / "maps" / "satellite.zarr")
    opened = [catalog[name].read() for name in ("satellite", "satellite_series")]
    for found in opened:
        chosen = (each.soil_moisture.sel(time=LAST).values for each in (found, root))
        np.testing.assert_array_equal(*chosen)
    assert opened[0].soil_moisture.encoding["chunks"][0] == 1


def test_the_lines_of_python_in_the_readme_run(elsewhere):
    text = (elsewhere / "README.txt").read_text()
    for stated in ("CC-BY-4.0", "A. Group", "https://doi.org/10.5281/zenodo.1", "A paper"):
        assert stated in text
    code = text.partition("Python (")[2].partition("R (")[0]
    lines = [line.strip() for line in code.splitlines() if line.startswith("    ")]
    names: dict = {}
    exec("\n".join(lines).replace("HERE", str(elsewhere)), names)
    values = xr.open_zarr(elsewhere / "maps" / "multiscale.zarr").soil_moisture.sel(time=LAST)
    assert names["mean"] == pytest.approx(np.nanmean(values.values), rel=1e-6)


def test_what_is_not_stated_is_said_to_be_so(demo):
    made = content.collect(Workspace(str(demo[0] / "demo")))
    items = {item.key: item.data.decode() for item in made.items if not item.source}
    collection = json.loads(items["collection.json"])
    stac_schemas.validate(collection)
    assert collection["license"] == "other"
    assert "Licence: not stated. Creator: not stated." in collection["description"]
    assert "providers" not in collection
    assert "Licence:  not stated" in items["README.txt"]
    assert "(2" in collection["sci:citation"]  # the year
    again = content.collect(Workspace(str(demo[0] / "demo")))
    assert again.digest == made.digest


def test_a_file_states_a_doi_that_came_later(world, tmp_path, monkeypatch):
    tree = yaml.safe_load(world.path.read_text())
    tree["product"] = {"doi": "doi:10.5281/zenodo.77", "references": "A page"}
    (tmp_path / "later.yaml").write_text(yaml.safe_dump(tree))
    root = str(Path(world.workspace.root).parent)
    words = ["soilweave", "publish", str(tmp_path / "later.yaml"), "--workspace", root]
    monkeypatch.setattr("sys.argv", [*words, "--to", str(tmp_path / "p")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    folder = Path(publications.find_release(str(tmp_path / "p")).url)
    assert read(folder / "collection.json")["sci:doi"] == "10.5281/zenodo.77"
    assert "See also: A page" in (folder / "README.txt").read_text()
    settings = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert settings["product"]["doi"] == "10.5281/zenodo.77"
    release = read(tmp_path / "p" / "latest.json")["release"]
    # As it was run, nothing is stated: another release, and a way back.
    publish.publish(world.workspace, str(tmp_path / "p"), SilentProgress())
    latest = read(tmp_path / "p" / "latest.json")
    assert latest["release"] != release
    publish.roll_back(str(tmp_path / "p"), SilentProgress())
    latest = read(tmp_path / "p" / "latest.json")
    stac_schemas.validate(latest)
    (child,) = (link["href"] for link in latest["links"] if link["rel"] == "child")
    assert child == f"./releases/{release}/collection.json"
    assert files.exists(str(tmp_path / "p" / child))
