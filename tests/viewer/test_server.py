"""The server of `soilweave view`: objects and ranges, of a folder and over HTTP, and no more."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import made_maps
import pytest
import web

from pipeline import files, viewer
from pipeline.errors import ConfigError, StoreError
from pipeline.progress import SilentProgress
from pipeline.publish import stage
from pipeline.publish.content import Content, Item
from pipeline.storage import records
from pipeline.storage.artefacts import Workspace
from pipeline.viewer import built
from pipeline.viewer.shown import check_arm

META = "maps/insitu.zarr/zarr.json"
SHARD = "maps/insitu.zarr/soil_moisture/c/0/0/0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_maps.make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def served(made):
    """The server of an experiment in a workspace."""
    server = viewer.Server(viewer.find_shown(made.root, made.workspace))
    yield server
    server.close()


@pytest.fixture(scope="module")
def publication(made, tmp_path_factory):
    """The folder of a publication of the maps, with the viewer beside it."""
    root, folder = made.root, tmp_path_factory.mktemp("published")
    keys = sorted(f"maps/{key}" for key in files.list_objects(made.workspace.url("maps")))
    items = (
        Item(r["key"], r["size"], r["sha256"], files.join(root, r["key"]))
        for r in records.read_records(root, keys)
    )
    collection = b'{"title": "made"}'
    items = (*items, Item("collection.json", 17, files.sha256(collection), data=collection))
    content = Content(made.workspace.described(), items, made_maps.LAST)
    release = stage.publish_content(content, str(folder), SilentProgress())
    viewer.put_beside(str(folder))
    return folder, release


def asked(url, path, method="GET", **headers):
    """Status, headers and body of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_the_page_and_what_it_reads_first(served, made):
    status, headers, page = asked(served.url, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'data-testid="map"' in page
    latest = json.loads(asked(served.url, "/latest.json")[2])
    assert latest == {"path": "experiment", "source": made.root}
    collection = json.loads(asked(served.url, "/experiment/collection.json")[2])
    assert [link["href"] for link in collection["links"] if link["rel"] == "item"] == [
        "./items/insitu.json"
    ]
    assert asked(served.url, "/experiment/sites.geojson")[0] == 404  # it was not evaluated


@pytest.mark.parametrize(
    ("asks", "part"),
    [
        ("bytes=10-19", slice(10, 20)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=3-", slice(3, None)),
        ("bytes=0-99999999", slice(0, None)),
        ("bytes=0-0", slice(0, 1)),
    ],
)
def test_a_range_is_that_part_of_the_object(served, made, asks, part):
    whole = files.read_bytes(made.workspace.url(SHARD))
    status, headers, body = asked(served.url, f"/experiment/{SHARD}", Range=asks)
    assert (status, body) == (206, whole[part])
    start = range(len(whole))[part].start
    assert headers["Content-Range"] == f"bytes {start}-{start + len(body) - 1}/{len(whole)}"


def test_whole_objects_heads_and_ranges_that_are_not_there(served, made):
    whole = files.read_bytes(made.workspace.url(SHARD))
    path = f"/experiment/{SHARD}"
    assert asked(served.url, path)[::2] == (200, whole)
    status, headers, body = asked(served.url, path, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(whole)), b"")
    status, headers, _ = asked(served.url, path, Range=f"bytes={len(whole)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    for ignored in ("bytes=1-2,5-6", "bytes=-", "lines=1-2"):
        assert asked(served.url, path, Range=ignored)[::2] == (200, whole)
    assert asked(served.url, path, "POST")[0] == 501


@pytest.mark.parametrize(
    "path",
    [
        "/experiment/maps/../experiment.yaml",
        "/experiment/maps/%2e%2e/experiment.yaml",
        "/experiment/maps/..%2fexperiment.yaml",
        "/experiment/maps/..%5cexperiment.yaml",
        "/experiment/maps//etc/passwd",
        "/experiment/maps/insitu.zarr/.hidden",
        "/../../etc/passwd",
        "//etc/passwd",
        "/experiment/experiment.yaml",
        "/experiment/maps/none",
        "/experiment/",
        "/releases/x",
        "/viewer/../server.py",
    ],
)
def test_nothing_else_is_served(served, path):
    assert asked(served.url, path)[0] == 404


def test_requests_that_name_another_host_are_refused(served):
    assert asked(served.url, "/latest.json", Host="example.org:80")[0] == 403
    port = urlsplit(served.url).port
    assert asked(served.url, "/latest.json", Host=f"localhost:{port}")[0] == 200


def test_a_publication_over_http_is_passed_on_with_its_absences_and_refusals(publication, made):
    folder, release = publication
    with web.serve(folder) as site:
        server = viewer.Server(viewer.find_shown(site.url, Workspace(site.url)))
        try:
            latest = json.loads(asked(server.url, "/latest.json")[2])
            source = f"{site.url}/releases/{release}"
            assert latest == {"path": f"releases/{release}", "source": source}
            there = f"/releases/{release}"
            whole = files.read_bytes(made.workspace.url(SHARD))
            status, headers, body = asked(server.url, f"{there}/{SHARD}", Range="bytes=-9")
            assert (status, body) == (206, whole[-9:])
            assert "immutable" in headers["Cache-Control"]
            assert asked(server.url, f"{there}/maps/insitu.zarr/none")[0] == 404
            site.fails("c/0/0/9", *[403] * 8)
            status, _, told = asked(server.url, f"{there}/maps/insitu.zarr/soil_moisture/c/0/0/9")
            assert status == 403
            assert told.count(b"\n") == 1
            assert asked(server.url, f"/{files.join('releases', '..', 'latest.json')}")[0] == 404
        finally:
            server.close()


def test_one_release_of_a_publication_is_shown_by_its_url(publication):
    folder, release = publication
    url = f"{folder}/releases/{release}"
    shown = viewer.find_shown(url, Workspace(url))
    assert json.loads(shown.find("latest.json").data) == {
        "path": f"releases/{release}",
        "source": url,
    }
    assert shown.arms == ("insitu",)


def test_the_viewer_lies_beside_the_releases_and_is_part_of_the_publication(publication, made):
    folder, _ = publication
    with web.serve(folder) as site:
        assert asked(site.url, "/index.html")[2] == built.built_files()["index.html"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"index.html", "viewer", "releases", "latest.json"}
    stage._check_target(made.workspace, str(folder))  # it is published to again


def test_mistakes_are_one_line(made, served, tmp_path):
    with pytest.raises(ConfigError, match=r"--arm none: .* has the arms insitu$"):
        check_arm(viewer.find_shown(made.root, made.workspace), "none", made.root)
    port = urlsplit(served.url).port
    with pytest.raises(ConfigError, match=rf"--port {port}: cannot be listened on: .* in use"):
        viewer.Server(viewer.find_shown(made.root, made.workspace), port)
    begun = Workspace(str(tmp_path / "begun"))
    begun.describe(made.workspace.described())
    with pytest.raises(StoreError, match="no complete maps to view; make them first: soilweave"):
        viewer.find_shown(begun.root, begun)


def test_the_verb_serves_until_it_is_interrupted(made):
    command = [sys.executable, "-m", "pipeline", "view", made.root, "--no-browser"]
    environment = os.environ | {"COLUMNS": "300"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        line = process.stdout.readline()
        url = line.split(" is shown at ")[1].split()[0]
        with urllib.request.urlopen(f"{url}latest.json", timeout=60) as answer:
            assert json.load(answer)["source"] == made.root
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_ranges_of_a_bucket_are_parts_of_its_objects(publication, made, s3):
    folder, release = publication
    url = s3.url("published")
    for key in files.list_objects(str(folder)):
        files.write_bytes(files.join(url, key), files.read_bytes(files.join(str(folder), key)))
    server = viewer.Server(viewer.find_shown(url, Workspace(url)))
    try:
        whole = files.read_bytes(made.workspace.url(SHARD))
        for asks, part in (("bytes=-9", slice(-9, None)), ("bytes=5-8", slice(5, 9))):
            status, _, body = asked(server.url, f"/releases/{release}/{SHARD}", Range=asks)
            assert (status, body) == (206, whole[part])
        assert asked(server.url, f"/releases/{release}/maps/none", Range="bytes=-9")[0] == 404
    finally:
        server.close()
