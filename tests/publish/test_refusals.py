"""What is not published, and what is said then: one line with the remedy."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import ClassVar

import fsspec
import publishing
import pytest
import s3_proxy
import web
from fsspec.implementations.memory import MemoryFileSystem
from publishing import Said
from typer.testing import CliRunner

from pipeline import cli, files, publish
from pipeline.errors import ConfigError, SoilweaveError, StoreError
from pipeline.progress import SilentProgress
from pipeline.storage import publications
from pipeline.storage.publications import open_maps

SEALS = ("record_sha256", "artefact")  # what manifests of earlier versions do not have


FULL = "report.html: cannot be written: File too large; the latest release is as before; correct"


def refused(workspace, url, pattern, **options):
    with pytest.raises(SoilweaveError, match=pattern) as caught:
        publish.publish(workspace, str(url), SilentProgress(), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def remove(*keys):
    return lambda root: [(root / key).unlink() for key in keys]


def shorten(key):
    return lambda root: (root / key).write_bytes((root / key).read_bytes()[:-3])


def other_settings(root):
    path = root / "experiment.yaml"
    path.write_text(path.read_text().replace("updates: 60", "updates: 61"))


UNFIT = {
    "no report": (remove("report.manifest.json", "report.html", "backup/report.json"),
                  r"there is no complete report; make it first: soilweave evaluate snow"),
    "no maps": (lambda root: shutil.rmtree(root / "maps"),
                "there is no complete maps; make it first: soilweave predict snow"),
    "a shard is missing": (remove("maps/insitu.zarr/snow_depth/c/0/0/0"),
                           "c/0/0/0: missing; soilweave verify .* with --repair"),
    "a table is short": (shorten("scores.parquet"), "scores.parquet: .* bytes, recorded are"),
    "manifest": (shorten("maps/manifest.json"), "manifest.json: is damaged"),
    "stale": (other_settings, "with other settings.*soilweave verify snow --repair"),
    "update": (lambda root: (root / "update" / "maps").mkdir(parents=True),
               "an update is not finished; finish it first: soilweave update snow"),
    "nothing": (lambda root: shutil.rmtree(root), "so nothing was run here; run an experiment"),
}  # fmt: skip


@pytest.mark.parametrize("unfit", UNFIT)
def test_an_experiment_that_is_not_complete_or_damaged(workspace, tmp_path, unfit):
    spoil, said = UNFIT[unfit]
    spoil(Path(workspace.root))
    refused(workspace, tmp_path / "p", said)
    assert not (tmp_path / "p").exists()


def test_a_flipped_bit_is_found_when_it_is_sent(workspace, tmp_path):
    path = Path(workspace.url("maps/insitu.zarr/series/snow_depth/c/0/0/0"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(workspace, tmp_path / "p", "snow_depth/c/0/0/0: differs from what its manifest rec")
    assert publications.find_release(str(tmp_path / "p")) is None


@pytest.mark.parametrize("place", ["ws/snow", "ws/snow/published", "link/published"])
def test_the_folder_of_the_experiment_itself(workspace, tmp_path, place):
    (tmp_path / "link").symlink_to(workspace.root)
    refused(workspace, tmp_path / place, "is in the experiment's own folder .*; give a folder or")


def test_a_folder_that_is_something_else(workspace, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    refused(workspace, tmp_path / "ws", "contains snow, which is no part of a publication; give an")
    refused(workspace, "https://example.invalid/x", "cannot be written to over HTTP; give a folder")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_publication_of_another_experiment(workspace, tmp_path):
    url = str(tmp_path / "p")
    publish.publish(workspace, url, SilentProgress())
    latest = json.loads((tmp_path / "p" / "latest.json").read_text())
    (tmp_path / "p" / "latest.json").write_text(json.dumps(latest | {"experiment": "rain"}))
    refused(
        workspace, url, "has releases of experiment rain, not of snow; publish it under another"
    )


def test_what_is_no_publication_has_nothing_to_go_back_to(tmp_path):
    with pytest.raises(StoreError, match="is no publication; publish first"):
        publish.roll_back(str(tmp_path / "p"), SilentProgress())
    with pytest.raises(StoreError, match="nothing was run here"):
        open_maps(str(tmp_path / "p"))


@pytest.mark.parametrize("text", ["", "[1]", '{"release": "x"}', "{", "secret"])
def test_latest_that_is_damaged(workspace, tmp_path, text):
    url = str(tmp_path / "p")
    name = publish.publish(workspace, url, SilentProgress())
    (tmp_path / "p" / "latest.json").write_text(text)
    with pytest.raises(StoreError, match=r"latest.json: is damaged: .*; remove it and publish"):
        open_maps(url)
    refused(workspace, url, r"latest.json: is damaged: .*; remove it and publish again")
    (tmp_path / "p" / "latest.json").unlink()
    said = Said()
    assert publish.publish(workspace, url, said) == name
    assert len(said.lines) == 1  # nothing was sent


def test_latest_cannot_lead_out_of_the_publication(workspace, tmp_path):
    url = str(tmp_path / "p")
    name = publish.publish(workspace, url, SilentProgress())
    text = (tmp_path / "p" / "latest.json").read_text()
    (tmp_path / "p" / "latest.json").write_text(text.replace(name, f"../../ws/releases/{name}"))
    with pytest.raises(StoreError, match="it has an id that no release has"):
        open_maps(url)


@pytest.mark.parametrize("other", [{"releases": None}, {"releases": 5}, {"path": "../ws/snow"}])
def test_latest_whose_values_have_another_form(workspace, tmp_path, other):
    url, path = str(tmp_path / "p"), tmp_path / "p" / "latest.json"
    publish.publish(workspace, url, SilentProgress())
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    for use in (open_maps, lambda url: publish.roll_back(url, SilentProgress())):
        with pytest.raises(StoreError, match=r"latest.json: is damaged: .*; remove it and publish"):
            use(url)
    refused(workspace, url, r"latest.json: is damaged: .*; remove it and publish again")


@pytest.mark.parametrize("other", [{"objects": 5}, {"objects": [1]}, {"arms": 3}])
def test_a_manifest_of_a_release_whose_values_have_another_form(workspace, tmp_path, other):
    url = str(tmp_path / "p")
    publish.publish(workspace, url, SilentProgress())
    path = Path(publications.find_release(url).url) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["record_sha256"], manifest["artefact"]  # as if nobody had sealed it
    path.write_text(json.dumps(manifest | other))
    with pytest.raises(StoreError, match=r"manifest.json: is damaged: .*; publish again"):
        open_maps(url)
    publish.publish(workspace, url, SilentProgress())
    assert open_maps(url).attrs["arm"] == "multiscale"


def test_a_place_that_cannot_be_written(workspace, tmp_path):
    (tmp_path / "file").write_text("here")
    said = refused(workspace, tmp_path / "file" / "p", "cannot be written: Not a directory")
    assert "give a folder or bucket that you can write to with --to" in said
    assert "--workspace" not in said


def test_a_full_disk_changes_nothing_for_readers(workspace, tmp_path):
    url = str(tmp_path / "p")
    name = publish.publish(workspace, url, SilentProgress())
    before = (tmp_path / "p" / "latest.json").read_bytes()
    publishing.fill_maps(workspace, 100)
    (tmp_path / "p" / "releases" / name / "report.html").unlink()  # so that it is sent again
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=FULL):
            publish.publish(workspace, url, SilentProgress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "p" / "latest.json").read_bytes() == before
    publish.publish(workspace, url, SilentProgress())
    assert (tmp_path / "p" / "latest.json").read_bytes() != before


class Careless(MemoryFileSystem):
    """A store that ignores conditions, as some servers of S3 do."""

    protocol = "careless"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value, mode="overwrite", **kwargs)


def test_a_store_that_ignores_conditional_writes(workspace):
    fsspec.register_implementation("careless", Careless, clobber=True)
    said = "the store ignores conditional writes .*; publish to a store that supports them"
    refused(workspace, "careless://p", said)
    assert files.list_objects("careless://p") == {}


@pytest.mark.servers
def test_a_bucket_that_may_only_be_read(workspace, s3, monkeypatch):
    with s3_proxy.before(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.forbidden = "PUT"
        said = refused(workspace, s3.url("readonly"), "lease.json: cannot be written: ")
        assert "give a folder or bucket that you can write to with --to" in said


@pytest.mark.servers
def test_a_bucket_that_may_not_be_listed(workspace, s3, tmp_path, monkeypatch):
    """Publishing is refused before anything is sent; reading needs no listing."""
    url = s3.url(tmp_path.name, "published")
    publishing.fill_maps(workspace, 100)
    publish.publish(workspace, url, SilentProgress())
    before = files.list_objects(url)
    publishing.fill_maps(workspace, 200)
    with s3_proxy.before(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.unlisted = True
        for place in (url, s3.url(tmp_path.name, "new")):
            said = refused(workspace, place, "cannot be listed: the server refuses")
            assert "allow s3:ListBucket" in said
        for group in ("", "series"):
            opened = open_maps(url, "insitu", group)
            assert float(opened.snow_depth[5].max()) == pytest.approx(1.0)  # 100 steps of 0.01 m
        assert {request.method for request in proxy.counted} <= {"GET", "HEAD"}
    monkeypatch.undo()
    assert files.list_objects(url) == before


def test_the_command_line(workspace, tmp_path):
    url, folder = str(tmp_path / "p"), str(Path(workspace.root).parent)
    run = CliRunner().invoke
    done = run(cli.app, ["publish", "snow", "--workspace", folder, "--to", url])
    assert done.exit_code == 0, done.output
    assert "is the latest: " in done.stderr
    assert done.stdout.startswith(f"Release: {url}/releases/")
    again = run(cli.app, ["publish", "snow", "--workspace", folder, "--to", url])
    assert "publish: unchanged: " in again.stderr
    assert run(cli.app, ["publish", "--to", url]).exception.problems == (
        "expected EXPERIMENT, or --rollback",
    )
    assert run(cli.app, ["publish", "snow", "--to", url, "--keep", "1"]).exit_code == 2
    both = run(cli.app, ["publish", "--to", url, "--rollback", "--keep", "2"])
    assert isinstance(both.exception, ConfigError)
    alone = run(cli.app, ["publish", "--to", url, "--rollback"])
    assert "there is no release before" in str(alone.exception)


def test_verify_reads_the_latest_release(workspace, tmp_path):
    url, run = str(tmp_path / "p"), CliRunner().invoke
    name = publish.publish(workspace, url, SilentProgress())
    folder = tmp_path / "p" / "releases" / name
    for target in (url, str(folder)):
        done = run(cli.app, ["verify", target])
        assert (done.exit_code, "no problem" in done.stdout) == (0, True)
    (folder / "maps/insitu.zarr/snow_depth/c/0/0/0").unlink()
    shorten("report.html")(folder)
    text = bytearray((folder / "card.md").read_bytes())
    text[9] ^= 1
    (folder / "card.md").write_bytes(text)
    (folder / "more.txt").write_text("x")
    done = run(cli.app, ["verify", url])
    assert done.exit_code == 1
    for line in ("maps/insitu.zarr/snow_depth/c/0/0/0: missing", "report.html: damaged",
                 "card.md: damaged", "more.txt: not listed"):  # fmt: skip
        assert line in done.stdout
    refusal = run(cli.app, ["verify", url, "--repair"]).exception
    assert "remove the objects that verify names, and publish again" in str(refusal)
    (folder / "card.md").unlink()
    publish.publish(workspace, url, SilentProgress())
    assert run(cli.app, ["verify", url]).exit_code == 0
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match=r"manifest.json: is damaged: it has no release, .*; pub"):
        open_maps(url)
    publish.publish(workspace, url, SilentProgress())
    assert run(cli.app, ["verify", url]).exit_code == 0


def test_no_secret_is_published(workspace, tmp_path):
    path = Path(workspace.url("experiment.yaml"))
    text = path.read_text().partition("\n")[2]  # without its digest, as earlier versions wrote it
    path.write_text(text.replace("catalog: /", "catalog: https://me:secret@example.org/"))
    url = str(tmp_path / "p")
    refused(workspace, url, "experiment.yaml")  # it has lost its digest
    for manifest in Path(workspace.root).rglob("*manifest.json"):
        content = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({k: content[k] for k in content if k not in SEALS}))
    publish.publish(workspace, url, SilentProgress())
    release = Path(publications.find_release(url).url)
    found = [p.name for p in release.rglob("*") if p.is_file() and b"me:secret" in p.read_bytes()]
    assert found == []
    assert "example.org/" in (release / "experiment.yaml").read_text()


def test_maps_open_over_http_without_a_listing(workspace, tmp_path):
    publishing.fill_maps(workspace, 100)
    publish.publish(workspace, str(tmp_path / "p"), SilentProgress())
    with web.serve(tmp_path / "p") as site:
        for group in ("", "series"):
            opened = open_maps(site.url, "insitu", group)
            assert float(opened.snow_depth[5].max()) == pytest.approx(1.0)  # 100 steps of 0.01 m
        assert not [path for path in site.paths() if path.endswith("/")]
