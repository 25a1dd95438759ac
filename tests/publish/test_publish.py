"""Releases: what is in them, how readers are switched, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import in_process
import numpy as np
import publishing
import pytest
import xarray as xr
from publishing import ARMS, TARGET, Said

from pipeline import files, publish
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import load
from pipeline.predict import stage as predict_stage
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import publications, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.publications import open_maps, release_url

STEP = 0.01  # of the stored values, in m

KILLED = """
import sys
sys.path[:0] = ["tests/fixtures"]
import publishing
from pipeline import publish
from pipeline.storage.artefacts import Workspace
progress = publishing.Said(40, publishing.kill_myself)
publish.publish(Workspace(sys.argv[1]), sys.argv[2], progress)
"""

HOLDER = """
import sys, time
from pipeline.storage import lease
lease.get_lease(sys.argv[1]).take(print)
print("held", flush=True)
time.sleep(120)
"""


def published(workspace, url, **options):
    """The release, and what was said."""
    said = Said()
    return publish.publish(workspace, url, said, **options), said.lines


def state(folder):
    """Content and time of every file."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def latest(url):
    return json.loads(files.read_bytes(files.join(url, "latest.json")))


def releases(url):
    """The ids of all releases, complete or not; a folder without an object is none."""
    return {key.partition("/")[0] for key in files.list_objects(f"{url}/releases")}


def value(url, arm="insitu", group=""):
    """The one value of all days and cells of a map, in steps."""
    values = open_maps(url, arm, group)[TARGET]
    found = np.unique(values.values)
    assert len(found) == 1, found
    return round(float(found[0] / values.encoding["scale_factor"]))


def test_a_release_has_everything_and_its_maps_open(workspace, url):
    name, lines = published(workspace, url)
    release = publications.find_release(url)
    assert (release.name, latest(url)["path"]) == (name, f"releases/{name}")
    assert lines[-1].startswith(f"release {name} is the latest")
    keys = set(release.objects)
    assert {f"maps/{arm}.zarr/zarr.json" for arm in ARMS} < keys
    assert {"scores.parquet", "summary.json", "report.html", "folds.parquet", "folds.geojson",
            "site_scores.csv", "collocated.zip",
            "next_probes.csv", "card.md", "card.json", "experiment.yaml", "sites.geojson",
            "footprints.json", "collection.json", "items/insitu.json", "intake.yaml", "README.txt",
            } < keys  # fmt: skip
    assert not [key for key in keys if key.startswith(("state", "models", "cube", "backup"))]
    assert set(files.list_objects(release.url)) == keys | {"manifest.json"}
    for group in (None, "series"):
        there = xr.open_zarr(workspace.url("maps/insitu.zarr"), group=group)
        for place in (url, release.url):
            opened = open_maps(place, "insitu", group or "")
            assert opened.attrs["release"] == name
            xr.testing.assert_equal(opened.load(), there.load())
    assert open_maps(url).attrs["arm"] == open_maps(workspace.root).attrs["arm"] == "multiscale"
    with pytest.raises(ConfigError, match=r"arm 'none': .* has the arms multiscale, insitu, sat"):
        open_maps(url, "none")
    assert "lease.json" not in files.list_folder(url)


def test_files_for_a_browser_have_the_numbers_of_the_tables(workspace, tmp_path):
    published(workspace, str(tmp_path / "p"))
    folder = Path(publications.find_release(str(tmp_path / "p")).url)
    points = json.loads((folder / "sites.geojson").read_text())["features"]
    table = tables.read_site_predictions(workspace, "observation", "prediction", "std", "status")
    assert [point["properties"]["site"] for point in points] == list(table.ids)
    row, point = 5, points[5]
    site = json.loads((folder / point["properties"]["file"]).read_text())
    assert (site["first_day"], site["n_days"], site["units"]) == ("2019-11-20", 160, "m")
    assert [site["lon"], site["lat"]] == point["geometry"]["coordinates"]
    numbers = np.array(site["observation"], float)
    np.testing.assert_allclose(numbers, table.observed[row], atol=0.51 * STEP)
    assert {"multiscale", "insitu", "satellite", "ridge"} == set(site["predictions"])
    of_arm = site["predictions"]["insitu"]
    assert of_arm["status"] == "out_of_fold"
    for key, column in (("mean", "prediction"), ("std", "std")):
        expected = table.values("insitu", column)[row]
        np.testing.assert_allclose(np.array(of_arm[key], float), expected, atol=0.51 * STEP)
    scores = tables.read_table(workspace.url("scores.parquet"))
    chosen = scores[(scores.id == table.ids[row]) & (scores.arm == "insitu")]
    rmse = float(chosen[(chosen.metric == "rmse") & (chosen.target == "site")].value.iloc[0])
    assert of_arm["scores"]["rmse"] == pytest.approx(rmse, abs=1e-5)
    assert point["properties"]["scores"]["insitu"] == of_arm["scores"]
    cube = xr.open_zarr(workspace.url("cube.zarr"), group="footprints", consolidated=False)
    index = json.loads((folder / "footprints.json").read_text())["rows"]
    days = slice("2019-11-20", "2020-04-27")
    satellite = cube[TARGET].sel(time=days).values
    assert index
    for text, key in index.items():
        for footprint in json.loads((folder / key).read_text())["footprints"]:
            expected = satellite[:, int(text), footprint["column"]]
            np.testing.assert_allclose(
                np.array(footprint["observation"], float), expected, atol=0.51 * STEP
            )


def test_the_model_card_says_what_how_good_and_where_not(workspace, tmp_path):
    published(workspace, str(tmp_path / "p"))
    folder = Path(publications.find_release(str(tmp_path / "p")).url)
    card, page = json.loads((folder / "card.json").read_text()), (folder / "card.md").read_text()
    summary = json.loads(files.read_bytes(workspace.url("summary.json")))
    median = summary["arms"]["insitu"]["median"]["rmse"]
    described = card["scores"]["held-out sites"]["by_name"]["insitu"]["rmse"]
    assert described["median"] == pytest.approx(median, abs=1e-5)
    assert len(described["ci95"]) == 2
    assert card["arms"]["insitu"]["learnt_from"] == ["sites: sites (24)"]
    assert card["data"]["sites"]["license"] == "CC0-1.0"
    for text in (
        "# snow:",
        "| `insitu` |",
        f"{median:.3g} [",
        "CC0-1.0",
        "## Limits",
        *card["limits"],
    ):
        assert text in page, text


def test_maps_by_models_of_another_experiment_are_published_without_scores(world, tmp_path):
    settings = [f"models={world.workspace.url('models')}", "arms=[insitu]", "sources.insitu=[]"]
    settings.append("sources.satellite=null")
    experiment = load.load_experiment(str(world.path), settings, "elsewhere")
    workspace = Workspace(str(tmp_path / "ws" / "elsewhere"))
    with in_process.preparing():
        prepare_stage.run(experiment, workspace, SilentProgress())
    predict_stage.run(experiment, workspace, SilentProgress())
    workspace.lease.release()
    url = str(tmp_path / "p")
    published(workspace, url)
    release = publications.find_release(url)
    assert {"maps/insitu.zarr/zarr.json", "card.md", "experiment.yaml"} < set(release.objects)
    assert not [key for key in release.objects if key.startswith(("scores", "summary", "report"))]
    card = files.read_bytes(files.join(release.url, "card.md")).decode()
    assert "These maps have no scores of their own: their models come from elsewhere." in card
    there = xr.open_zarr(workspace.url("maps/insitu.zarr"))
    xr.testing.assert_equal(open_maps(url, "insitu").load(), there.load())


def test_unchanged_is_not_published_again(workspace, tmp_path):
    url = str(tmp_path / "p")
    name, _ = published(workspace, url)
    before = state(url)
    assert published(workspace, url) == (name, [f"unchanged: {name} is the latest release already"])
    assert state(url) == before


def test_what_is_unchanged_is_linked_and_the_rest_sent(workspace, tmp_path):
    url = str(tmp_path / "p")
    first, _ = published(workspace, url)
    changed = publishing.fill_maps(workspace, 300, ["insitu"])
    second, lines = published(workspace, url)
    folders = [Path(release_url(url, name)) for name in (first, second)]
    keys = [str(p.relative_to(folders[1])) for p in folders[1].rglob("*") if p.is_file()]
    before = {p.stat().st_ino for p in folders[0].rglob("*")}
    own = [k for k in keys if (folders[1] / k).stat().st_ino not in before]
    # The report and the scores are as they were, as after an update.
    assert sorted(own) == sorted([*changed, "manifest.json"])
    assert lines[0].startswith(f"{len(changed)} objects sent")
    assert f"{len(keys) - len(changed) - 1} copied there" in lines[0]
    assert value(url) == 300
    assert value(release_url(url, second), group="series") == 300


def test_go_back_and_forward_again(workspace, url):
    names = []
    for count in (100, 200, 300):
        publishing.fill_maps(workspace, count, ["insitu"])
        names.append(published(workspace, url)[0])
    assert publish.roll_back(url, SilentProgress()) == names[1]
    assert value(url) == 200
    again, lines = published(workspace, url)  # the same content: nothing is sent
    assert (again, len(lines), value(url)) == (names[2], 1, 300)
    publish.roll_back(url, SilentProgress())
    publishing.fill_maps(workspace, 400, ["insitu"])
    published(workspace, url)
    assert publish.roll_back(url, SilentProgress()) == names[1]  # not the one that was taken back
    assert publish.roll_back(url, SilentProgress()) == names[0]
    with pytest.raises(StoreError, match=f"there is no release before {names[0]}"):
        publish.roll_back(url, SilentProgress())
    assert value(url) == 100


def test_old_releases_are_removed_but_never_the_latest(workspace, url):
    names = []
    for count in (100, 200, 300, 400):
        publishing.fill_maps(workspace, count, ["insitu"])
        names.append(published(workspace, url)[0])
    publish.roll_back(url, SilentProgress())
    opened = open_maps(release_url(url, names[0]), "insitu")
    publishing.fill_maps(workspace, 500, ["insitu"])
    names.append(published(workspace, url, keep=2)[0])
    # The release that was taken back is not one that readers may have opened just before.
    assert releases(url) == {names[2], names[4]}
    assert value(url) == 500
    with pytest.raises(StoreError, match="recorded but not there: the release was removed"):
        opened[TARGET].values.mean()  # Zarr alone would read fill values
    publish.roll_back(url, SilentProgress())
    name, _ = published(workspace, url, keep=3)
    assert (name, value(url)) == (names[4], 500)


def test_a_lost_latest_does_not_cost_the_releases_that_are_kept(workspace, url):
    names = []
    for count in (100, 200, 300):
        publishing.fill_maps(workspace, count, ["insitu"])
        names.append(published(workspace, url)[0])
        time.sleep(1.0)  # ids begin with the second, by which they are ordered
    files.remove(f"{url}/latest.json")  # as its message says if it is damaged
    publishing.fill_maps(workspace, 400, ["insitu"])
    names.append(published(workspace, url, keep=3)[0])
    assert releases(url) == {*names[1:]}
    assert publish.roll_back(url, SilentProgress()) == names[2]


def test_a_publisher_that_is_killed_changes_nothing_and_is_continued(workspace, url):
    first, _ = published(workspace, url)
    publishing.fill_maps(workspace, 100)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, workspace.root, url],
        cwd=Path(__file__).resolve().parents[2], env=os.environ, timeout=300, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert latest(url)["release"] == first
    (left,) = releases(url) - {first}
    assert publications.read_release(release_url(url, left)) is None
    name, lines = published(workspace, url)
    assert name == left
    assert "kept of an interrupted run" in lines[0]
    assert releases(url) == {first, name}
    assert value(url) == 100


def test_what_is_left_of_other_content_is_removed(workspace, url):
    first, _ = published(workspace, url)
    publishing.fill_maps(workspace, 100)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish.publish(workspace, url, Said(40, interrupt))
    assert latest(url)["release"] == first
    assert len(releases(url)) == 2
    assert "lease.json" not in files.list_folder(url)
    publishing.fill_maps(workspace, 200)
    name, lines = published(workspace, url)
    assert "interrupted" not in lines[0]
    assert releases(url) == {first, name}
    assert value(url) == 200


def test_two_publishers_at_once(workspace, url):
    first, _ = published(workspace, url)
    publishing.fill_maps(workspace, 100)
    command = [sys.executable, "-c", HOLDER, f"{url}/lease.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            said = f"held by process {other.pid} .*; another publisher is at work; wait for it"
            with pytest.raises(StoreError, match=said):
                published(workspace, url)
            with pytest.raises(StoreError, match=said):
                publish.roll_back(url, SilentProgress())
        finally:
            other.kill()
    assert latest(url)["release"] == first
    published(workspace, url)
    assert value(url) == 100


def test_one_that_was_switched_meanwhile_is_not_overwritten(workspace, url):
    published(workspace, url)
    content = files.read_bytes(f"{url}/latest.json")
    publishing.fill_maps(workspace, 100)

    def switch():  # as one that has lost its lease would
        files.write_bytes(f"{url}/latest.json", content + b"\n")

    with pytest.raises(StoreError, match=r"another publisher has switched it meanwhile, so .* is"):
        publish.publish(workspace, url, Said(20, switch))
    assert files.read_bytes(f"{url}/latest.json") == content + b"\n"


def test_what_arrives_damaged_is_not_published(workspace, tmp_path):
    url = str(tmp_path / "p")
    first, _ = published(workspace, url)
    publishing.fill_maps(workspace, 100)
    damaged = []

    def damage():
        (folder,) = releases(url) - {first}
        for path in Path(release_url(url, folder)).rglob("snow_depth/c/0/0/0"):
            path.write_bytes(bytes(path.stat().st_size))
            damaged.append(str(path).partition(f"{folder}/")[2])

    before = latest(url)
    made = Said(0, damage)
    made.left = len(publications.find_release(url).objects)  # after the last object
    with pytest.raises(StoreError, match=r"is not what was sent: .*SHA-256 differs from what was"):
        publish.publish(workspace, url, made)
    assert damaged
    assert latest(url) == before
    _, lines = published(workspace, url)
    assert lines[0].startswith(f"{len(damaged)} objects sent")
    assert value(url) == 100


def test_a_damaged_release_is_not_copied_and_mended_by_publishing(workspace, tmp_path):
    url = str(tmp_path / "p")
    first, _ = published(workspace, url)
    folder = Path(release_url(url, first))
    (folder / "report.html").unlink()
    (folder / "summary.json").unlink()
    (folder / "summary.json").write_bytes(b"{}")
    name, lines = published(workspace, url)
    assert (name, lines[0][:14]) == (first, "2 objects sent")
    assert publications.verify_release(publications.find_release(url), Said()).problems == []
