"""Verbs as jobs of a real Ray cluster, one node, with token authentication."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import world
import xarray as xr
import yaml

from pipeline import cli, files
from pipeline.catalog import intake_catalog
from pipeline.cli import run_stages
from pipeline.cluster import submit
from pipeline.errors import ConfigError
from pipeline.experiment import load, shipped_models
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import artefacts, provenance, tables

if TYPE_CHECKING:
    import subprocess


ENDS_S = 180  # far more than anything here takes
REMOTE = "s3://bucket/ws"


@pytest.fixture(scope="module")
def failing(cluster, tmp_path_factory):
    """A client whose job has no cube to train on."""
    folder = tmp_path_factory.mktemp("failing")
    path = world.write(folder / "snow")
    with cluster.client(path, "--verb", "train", "--workspace", folder / "ws") as client:
        yield client
        client.kill()


@pytest.fixture(scope="module")
def prepared(cluster, failing, tmp_path_factory):
    """The small world prepared by a job whose first client was killed.

    Its experiment, where the artefacts are, and what the second client said.
    """
    folder = tmp_path_factory.mktemp("job")
    path = world.write(folder / "snow")
    with cluster.client(path, "--verb", "prepare", "--workspace", folder / "ws") as first:
        said = first.stderr.readline()
        assert first.stdout.readline()
        first.kill()
    again = cluster.run("--follow", said.split()[1].rstrip(":"))
    return path, folder / "ws" / "snow", again


def test_a_job_is_followed_again_from_its_first_line_to_its_status(prepared):
    *_, (code, out, err) = prepared
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for begin in ("Running entrypoint", "prepare: cube", "folds: ", "Outputs: "):
        assert len([line for line in lines if line.startswith(begin)]) == 1
    assert ": python -m pipeline prepare experiment.yaml --workspace /" in out


def test_a_job_makes_what_this_machine_makes(prepared, tmp_path, local_ray):
    path, there, (code, *_) = prepared
    assert code == 0
    experiment, workspace = (
        load.load_experiment(str(path)),
        artefacts.Workspace(str(tmp_path / "snow")),
    )
    for stage in (prepare_stage, folds):
        stage.run(experiment, workspace, SilentProgress())
    workspace.lease.release()
    here = tmp_path / "snow"
    for group in ("cells", "footprints", "sites"):
        ours, theirs = (xr.open_zarr(place / "cube.zarr", group=group) for place in (here, there))
        xr.testing.assert_equal(ours.load(), theirs.load())
    ours, theirs = (tables.read_table(str(place / "folds.parquet")) for place in (here, there))
    assert ours.equals(theirs)
    ours, theirs = (files.read_json(f"{place}/cube.zarr/manifest.json") for place in (here, there))
    for manifest in (ours, theirs):
        manifest["inputs"].pop("sources.catalog", None)  # lies elsewhere; its content is the same
    for key in ("inputs", "shards", "git_commit"):
        assert theirs[key] == ours[key]


def test_a_failing_job_gives_its_status_and_its_error(failing):
    out = failing.stdout.read()
    assert failing.wait(ENDS_S) == 2, failing.stderr.read()
    assert "no complete cube here; make it with: soilweave prepare" in out
    assert out.splitlines()[-1].endswith("failed with exit code 2")


@pytest.mark.cluster  # it takes a third of a minute
def test_an_interrupted_client_leaves_the_job_alone_and_a_stopped_job_has_a_status(cluster):
    job = cluster.start("echo begun; sleep 60")
    with cluster.client("--follow", job) as client:
        _until(client, "begun")
        client.send_signal(signal.SIGINT)
        assert client.wait(ENDS_S) == 130
        said = client.stderr.read()
    assert said.count("\n") == 1
    assert f"soilweave submit --follow {job}" in said
    assert f"ray job stop {job}" in said
    with cluster.client("--follow", job) as client:
        _until(client, "begun")
        cluster.stop(job)
        assert client.stdout.read().endswith(f"job {job}: stopped\n")
        assert client.wait(ENDS_S) == 130


def test_lost_connections_cost_no_line_double_none_and_the_status_is_the_jobs(cluster):
    job = cluster.start("for i in $(seq 0 39); do echo $i; sleep 0.1; done; kill -9 $$")
    with Wire(int(cluster.url.rsplit(":", 1)[1])) as wire:
        address = f"http://127.0.0.1:{wire.port}"
        with cluster.client("--follow", job, "--address", address) as client:
            lines = []
            for pause in (0.0, 1.5):
                lines += [client.stdout.readline() for _ in range(12)]
                wire.cut(pause)
            lines += client.stdout.readlines()
            # As a shell says of a process that was killed.
            assert client.wait(ENDS_S) == 128 + 9, client.stderr.read()
    assert wire.cuts == 2
    assert lines[-1].endswith("failed with exit code -9\n")
    numbers = [line.strip() for line in lines if line.strip().isdigit()]
    assert numbers == [str(i) for i in range(40)]


def _until(client: subprocess.Popen, begin: str) -> None:
    """Read what a client says up to a line."""
    while line := client.stdout.readline():
        if line.startswith(begin):
            return
    raise AssertionError(client.stderr.read())


class Wire:
    """A way to a port that can be cut."""

    def __init__(self, port: int) -> None:
        self.target, self.cuts, self.whole = port, 0, True
        self.ends, self.all, self.threads = [], [], []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self.server.shutdown(socket.SHUT_RDWR)
        self.whole = False
        self._drop()
        for thread in self.threads:
            thread.join()
        for each in (self.server, *self.all):
            each.close()

    def cut(self, seconds: float) -> None:
        """Cut every connection, and let none through for a while."""
        self.whole = False
        self._drop()
        self.cuts += 1
        time.sleep(seconds)
        self.whole = True

    def _drop(self) -> None:
        while self.ends:
            with contextlib.suppress(OSError):
                self.ends.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.server.accept()
                if not self.whole:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
                self.ends += [near, far]
                self.all += [near, far]
                self._start(_pump, near, far)
                self._start(_pump, far, near)

    def _start(self, target, *args) -> None:
        self.threads.append(threading.Thread(target=target, args=args, daemon=True))
        self.threads[-1].start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("args", "changed", "says"),
    [
        (["demo", "--workspace", REMOTE], {"RAY_AUTH_TOKEN": "0" * 32}, "set RAY_AUTH_MODE and"),
        (["demo", "--workspace", REMOTE], {"RAY_AUTH_MODE": "disabled"}, "set RAY_AUTH_MODE and"),
        (["--follow", "nobody"], {}, "latest: snow-"),
    ],
)
def test_what_the_cluster_refuses_is_one_line(cluster, prepared, args, changed, says):
    code, out, err = cluster.run(*args, **changed)
    assert (code, out) == (2, "")
    assert err.startswith("soilweave submit: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["demo", "--workspace", REMOTE, "--address", "http://127.0.0.1:1"], "ray start --head"),
        (["demo", "--workspace", "mine"], "relative path is another folder on every node"),
        (["demo", "--workspace", REMOTE, "--verb", "ls"], "verbs that run as jobs: run, "),
        (["demo", "--workspace", REMOTE, "--set", "train.updtes=3"], "did you mean 'updates'"),
        (["demo", "--workspace", REMOTE, "--set", "sources.catalog=x.yaml"], "'x.yaml': not found"),
        (["demo", "--workspace", REMOTE, "--set", "planet.url=near"], "http://127.0.0.1:1"),
        (["demo", "--follow", "snow-1"], "expected EXPERIMENT, or --follow JOB"),
        ([], "expected EXPERIMENT, or --follow JOB"),
    ],
)
def test_what_a_user_can_mend_is_one_line(monkeypatch, capsys, args, says):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # where nobody is
    monkeypatch.setattr(sys, "argv", ["soilweave", "submit", *args])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("soilweave submit: ")
    assert err.count("\n") == 1
    assert says in err


def test_a_server_that_stays_away_is_given_up(monkeypatch):
    class Gone:
        asked = 0

        def get_job_info(self, job):
            self.asked += 1
            raise ConnectionError("gone")

    monkeypatch.setattr(submit, "PATIENCE_S", 0.3)
    monkeypatch.setattr(submit, "PAUSE_S", 0.1)
    client = Gone()
    with pytest.raises(ConfigError, match=r"no Ray .*: gone; .*again with --follow snow-1"):
        asyncio.run(submit._follow_log(client, "snow-1", "http://head:8265", print))
    assert client.asked > 2


def test_a_silent_host_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(submit, "REQUEST_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{address}: no Ray dashboard answers"):
            submit.follow_job("any", address, print)


@pytest.mark.parametrize(
    ("given", "environment", "found"),
    [
        (None, {}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "auto"}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "http://a:1"}, "http://a:1"),
        (
            None,
            {"RAY_ADDRESS": "http://a:1", "RAY_API_SERVER_ADDRESS": "http://b:2/"},
            "http://b:2",
        ),
        ("https://c", {"RAY_API_SERVER_ADDRESS": "http://b:2"}, "https://c"),
    ],
)
def test_where_jobs_go(monkeypatch, given, environment, found):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert submit.dashboard_url(given) == found


@pytest.mark.parametrize("given", ["ray://head:10001", "head:6379"])
def test_other_addresses_of_a_cluster_are_refused(given):
    with pytest.raises(ConfigError, match=f"{given}: is no URL.*--address http://head:8265"):
        submit.dashboard_url(given)


def test_every_verb_that_is_a_row_of_stages_can_be_a_job():
    assert set(submit.JOB_VERBS) == set(run_stages.STAGES)


def test_a_password_is_not_shown_around():
    order = submit.JobSpec("demo", "run", "ftp://me:mine@host/ws")
    with pytest.raises(ConfigError, match="leave it out") as error:
        submit.submit_job(order, "http://127.0.0.1:1")
    assert "mine" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, ()) for name in load.list_presets("experiments")),
        ("demo", ("recipe=liu2022", "train.updates=50")),
        ("demo", ("recipe=liu2022", "train.epochs=2", "planet.url=/planet")),
        ("scan", ("inputs.slow=[]", "qc.stuck_days=null", "models=s3://bucket/models")),
    ],
)
def test_a_resolved_experiment_is_read_again_as_it_is(tmp_path, name, settings):
    assert (
        submit.collect_upload(
            submit.JobSpec(name, "run", REMOTE, "again", settings=settings), tmp_path
        )
        == "again"
    )
    again = load.load_experiment(str(tmp_path / "experiment.yaml"))
    assert again == load.load_experiment(name, settings, "again")


@pytest.fixture
def staged(snow, tmp_path, monkeypatch):
    """What is uploaded where recipe, catalog and models are named by relative paths."""
    (snow.parent / "mine.yaml").write_text(yaml.safe_dump(load.read_settings("recipes", "liu2022")))
    monkeypatch.chdir(snow.parent)
    settings = ("recipe=mine.yaml", "sources.catalog=catalog.yaml", "models=other/models")
    folder = tmp_path / "staged"
    folder.mkdir()
    submit.collect_upload(submit.JobSpec("snow.yaml", "run", REMOTE, settings=settings), folder)
    return folder


def test_every_catalog_that_is_a_file_comes_along(snow, tmp_path, monkeypatch):
    """One named by an entry, and one nested in the experiment's."""
    monkeypatch.chdir(snow.parent)
    nest = {"all": {"driver": "yaml_file_cat", "args": {"path": "{{CATALOG_DIR}}/catalog.yaml"}}}
    Path("main.yaml").write_text(yaml.safe_dump({"sources": nest}))
    Path("mine.yaml").write_text(Path("catalog.yaml").read_text())
    settings = (
        *("sources.catalog=main.yaml", "sources.forcing=all.cells", "sources.static=all.cells"),
        *("sources.satellite=all.footprints", "sources.insitu=[mine.yaml:sites]"),
    )
    folder = tmp_path / "staged"
    folder.mkdir()
    submit.collect_upload(submit.JobSpec("snow.yaml", "run", REMOTE, settings=settings), folder)
    before = load.load_experiment("snow.yaml", settings)
    wanted = [
        intake_catalog.driver_of_entry(before, name).urlpath
        for name in intake_catalog.cube_entries(before)
    ]
    Path("catalog.yaml").unlink()
    monkeypatch.chdir(folder)
    after = load.load_experiment("experiment.yaml")
    assert [
        intake_catalog.driver_of_entry(after, name).urlpath
        for name in intake_catalog.cube_entries(after)
    ] == wanted


def test_what_is_uploaded_is_little(staged):
    found = {str(p.relative_to(staged)): p.stat().st_size for p in staged.rglob("*") if p.is_file()}
    given = {"experiment.yaml", "recipe.yaml", "catalog.yaml", "pipeline/COMMIT"}
    root = Path(submit.__file__).parents[2]
    code = {
        str(p.relative_to(root))
        for package in submit.PACKAGES
        for p in (root / package).rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    # Trained models come along only where the job uses them.
    code = {name for name in code if not name.startswith(shipped_models.FOLDER)}
    assert found.keys() == given | code
    assert sum(found.values()) < 4e6  # the code, before it is compressed
    assert (staged / "pipeline" / "COMMIT").read_text().strip() == provenance.code_commit()


def test_what_is_named_by_a_relative_path_comes_along(staged, snow, monkeypatch, tmp_path):
    wanted = load.load_experiment("snow.yaml", ["recipe=mine.yaml"])
    monkeypatch.chdir(staged)
    found = load.load_experiment("experiment.yaml")
    assert found.recipe_sections == wanted.recipe_sections
    assert (found.recipe, found.sources.catalog) == ("recipe.yaml", "catalog.yaml")
    assert found.models == str(snow.parent / "other" / "models")
    assert Path("catalog.yaml").read_bytes() == (snow.parent / "catalog.yaml").read_bytes()


def test_too_much_is_not_uploaded(tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "MAX_UPLOAD_MB", 0.1)
    with pytest.raises(
        ConfigError, match=r"at most 0.1; the largest: pipeline/viewer/static/viewer"
    ):
        submit.collect_upload(submit.JobSpec("demo", "run", REMOTE), tmp_path)


def test_a_log_told_anew_and_in_other_pieces_gives_every_line_once():
    text, lines = "one\n\ntwo\nthree\nrest", []
    log = submit._LogWriter(lines.append)
    for end, step in ((3, 1), (9, 4), (2, 1), (len(text), 5)):
        log.begin()
        for start in range(0, end, step):
            log.add(text[start : min(start + step, end)])
    assert lines == ["one", "", "two", "three"]
    log.end()
    assert lines[-1] == "rest"
