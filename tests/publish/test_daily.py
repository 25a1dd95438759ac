"""A daily publication to S3 costs what changed."""

from __future__ import annotations

import publishing
import pytest
import s3_proxy
from publishing import Said

from pipeline import files, publish
from pipeline.storage import publications

pytestmark = pytest.mark.servers


def test_what_is_unchanged_is_copied_by_the_server(workspace, s3, tmp_path, monkeypatch):
    url = s3.url(tmp_path.name)
    publish.publish(workspace, url, Said())
    before = publications.find_release(url)
    # What an update writes again: a shard of the root and one of the series, in each arm.
    changed = publishing.fill_maps(workspace, 100, ["insitu"])
    with s3_proxy.before(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        said = Said()
        name = publish.publish(workspace, url, said)
        requests = [*proxy.counted]
        release = publications.find_release(url)
    folder = f"/{release.url.removeprefix('s3://')}/"
    put = {
        r.path.partition("?")[0].removeprefix(folder): r.sent for r in requests if r.method == "PUT"
    }
    objects = release.objects
    sent = {key: n for key, n in put.items() if key in objects}
    assert sent == {key: objects[key]["size"] for key in changed}
    own = {key.rpartition("/")[2] for key in put.keys() - sent.keys()}
    assert own == {"manifest.json", "latest.json", "lease.json"}
    copied = [r for r in requests if r.method == "COPY"]
    assert len(copied) == len(objects) - len(changed)
    assert sum(r.sent for r in copied) == 0
    # All objects are verified by what the server says of them: none is read back.
    read = {r.path.partition("?")[0].removeprefix(folder) for r in requests if r.method == "GET"}
    assert not read & objects.keys()
    assert said.lines[0].startswith(f"{len(changed)} objects sent")
    tags = {record["sha256"]: record["tag"] for record in before.objects.values()}
    assert all(r["tag"] == tags[r["sha256"]] for k, r in objects.items() if k not in changed)
    assert publications.verify_release(release, Said()).problems == []
    assert name > before.name


def test_to_and_from_a_bucket(world, s3, tmp_path):
    """What is published is the same, wherever the experiment is and wherever it is published."""
    root = s3.url(tmp_path.name, "ws", "snow")
    for key in files.list_objects(world.workspace.root):
        files.write_bytes(f"{root}/{key}", files.read_bytes(world.workspace.url(key)))
    there = type(world.workspace)(root)
    elsewhere, there_too = str(tmp_path / "p"), s3.url(tmp_path.name, "p")
    made = [(there, elsewhere), (there, there_too), (world.workspace, str(tmp_path / "q"))]
    digests = set()
    for workspace, place in made:
        publish.publish(workspace, place, Said())
        digests.add(publications.find_release(place).manifest["content_sha256"])
    assert len(digests) == 1
