"""Whatever fails, the command line says it in one line: the operation, the object, the remedy."""

from __future__ import annotations

import errno
import importlib.util
import os
import pickle
import re
import socket
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

import aiohttp
import answering
import fsspec
import pytest
import web
import yaml
from fsspec.implementations.http import HTTPFileSystem

from pipeline import cli, failures, files
from pipeline.cli import last_resort, run_stages
from pipeline.cluster import ray_cluster
from pipeline.errors import ClusterError, DataError, SoilweaveError, StoreError
from pipeline.experiment import load
from pipeline.sources.shared import access, http_errors
from pipeline.storage import schema, zarr_arrays
from pipeline.storage.schema import ArraySpec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(monkeypatch):
    """Keys for a server of S3, and a function that sets its URL; requests are not repeated."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "no-secret-of-anybody",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_TRACKING_URI": "",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda url: monkeypatch.setenv("AWS_ENDPOINT_URL", url)


def command(monkeypatch, *arguments) -> tuple[int, str]:
    """Run the command line in this process; its exit status and what it says on stderr."""
    said = []
    monkeypatch.setattr(run_stages.err, "print", lambda text, **_: said.append(text))
    monkeypatch.setattr(sys, "argv", ["soilweave", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, "\n".join(said)


def is_one_line(text: str) -> bool:
    return bool(text) and "\n" not in text and "Traceback" not in text


OPERATIONS = {
    "read": lambda url: files.read_bytes(url),
    "listed": lambda url: files.list_folder(url),
    "written": lambda url: files.write_bytes(url, b"1"),
    "removed": lambda url: files.remove(url),
    "copied to": lambda url: files.copy(url, f"{url}-copy"),
}

# Code or status, status, body -> what is said, and a part of the remedy.
ANSWERS = {
    "ExpiredToken": (400, "session token has expired", "AWS_SESSION_TOKEN"),
    "InvalidToken": (400, "session token is not valid", "AWS_SESSION_TOKEN"),
    "InvalidAccessKeyId": (403, "does not know the access key", "AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, "does not accept the signature", "AWS_SECRET_ACCESS_KEY"),
    "AccessDenied": (403, "the server refuses", "allow s3:"),
    "RequestTimeTooSkewed": (403, "clocks", "set the clock"),
    "PermanentRedirect": (301, "another region", "AWS_DEFAULT_REGION"),
    "SlowDown": (503, "(the server is busy|answers 503)", "later"),
    "InternalError": (500, "(the server is busy|answers 500)", "later"),
    "QuotaExceeded": (403, "no space left|refuses the request", ""),
    "SomethingNew": (418, "(SomethingNew|answers 418)", ""),
}


@pytest.mark.parametrize("code", ANSWERS)
def test_an_answer_of_s3_is_told_with_the_operation_and_the_object(store, code):
    status, reason, remedy = ANSWERS[code]
    with answering.always(status, answering.s3_error(code)) as url:
        store(url)
        # Every client takes a while, so the other codes are told to two operations.
        operations = OPERATIONS if code in ("ExpiredToken", "AccessDenied") else ("read", "listed")
        for operation in operations:
            with pytest.raises(StoreError) as caught:
                OPERATIONS[operation]("s3://bucket/ws/a.json")
            text = str(caught.value)
            assert is_one_line(text), text
            assert text.startswith(f"s3://bucket/ws/a.json: cannot be {operation}"), text
            assert re.search(reason, text), text
            assert remedy in caught.value.remedy, text


def test_a_compare_and_swap_that_is_refused_is_told(store):
    with answering.always(403, answering.s3_error("AccessDenied")) as url:
        store(url)
        with pytest.raises(StoreError, match=r"cannot be written: the server refuses"):
            files.compare_and_swap("s3://bucket/lease.json", b"1", b"0")


@pytest.mark.parametrize("request_", ["ls", "prepare"])
def test_the_command_line_says_it_in_one_line(store, monkeypatch, snow, request_):
    with answering.always(400, answering.s3_error("ExpiredToken")) as url:
        store(url)
        status, said = command(monkeypatch, request_, snow, "--workspace", "s3://bucket/ws")
    assert status == 2
    assert is_one_line(said), said
    assert "s3://bucket/ws/snow/" in said
    assert "session token has expired (ExpiredToken)" in said


@pytest.mark.parametrize("target", ["bucket", "http"])
@pytest.mark.parametrize("how", ["refused", "closed", "unnamed", "no TLS"])
def test_a_server_that_cannot_be_reached_is_told(store, monkeypatch, target, how):
    reasons = {
        "refused": "Connection refused",
        "closed": "closed the connection|Connection reset|ended before",
        "unnamed": "cannot be found",
        "no TLS": "no secure connection|certificate",
    }
    with answering.always(0) as open_url:
        endpoint = {
            "refused": "http://127.0.0.1:9",
            "closed": open_url,
            "unnamed": "http://nowhere.invalid",
            "no TLS": open_url.replace("http:", "https:"),
        }[how]
        store(endpoint)
        url = "s3://bucket/x.yaml" if target == "bucket" else f"{endpoint}/x.yaml"
        status, said = command(monkeypatch, "ls", url)
        # What is read by a driver, and may be absent, is not called absent either.
        with pytest.raises(DataError) as caught:
            access.read_file(url)
    assert status == 2
    assert is_one_line(said), said
    assert re.search(reasons[how], said), said
    for text in (said, str(caught.value)):
        assert "not found" not in text
        assert url in text


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_url_that_is_refused_is_not_called_absent(tmp_path, monkeypatch, status):
    with web.serve(tmp_path) as site:
        site.fails("x", *[status] * 20)
        code, said = command(monkeypatch, "ls", f"{site.url}/x.yaml")
    assert code == 2
    assert is_one_line(said), said
    assert str(status) in said
    assert "not found" not in said


def test_a_web_page_is_not_called_damaged_json(tmp_path):
    (tmp_path / "manifest.json").write_text("<html><body>log in</body></html>")
    with pytest.raises(StoreError, match="there is a web page") as caught:
        files.read_json(str(tmp_path / "manifest.json"))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["gs", "az", "abfs", "sftp", "nothing", "hdfs"])
def test_a_store_without_its_package_or_account_is_told(monkeypatch, scheme):
    for name in [n for n in os.environ if n.startswith(("AZURE", "GOOGLE"))]:
        monkeypatch.delenv(name)
    if scheme == "gs":  # it would ask the network
        monkeypatch.setitem(sys.modules, "gcsfs", None)
    url = f"{scheme}://bucket/x.yaml"
    code, said = command(monkeypatch, "ls", url)
    assert code == 2
    assert is_one_line(said), said
    assert url in said
    assert "cannot be opened" in said


# Disks.

NUMBERS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EROFS: "Read-only file system",
    errno.EACCES: "Permission denied",
    errno.EMFILE: "Too many open files",
    errno.EIO: "Input/output error",
    errno.EFBIG: "File too large",
}


def failing(number: int):
    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_error_of_a_disk_is_told_with_the_operation_and_the_file(
    tmp_path, monkeypatch, number, operation
):
    url = str(tmp_path / "a.json")
    Path(url).write_text("{}")
    local = type(fsspec.filesystem("file"))
    for name in ("cat_file", "ls", "pipe_file", "rm", "cp_file"):
        monkeypatch.setattr(local, name, failing(number))
    with pytest.raises(StoreError) as caught:
        OPERATIONS[operation](url)
    text = str(caught.value)
    assert is_one_line(text), text
    # A copy on a disk is read and written.
    shown = "read" if operation == "copied to" else operation
    assert f"{url}: cannot be {shown}: {NUMBERS[number]}" in text
    assert caught.value.remedy


ARRAY = ArraySpec("values", ("time",), (8,), "<f4", (8,), (4,))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_a_zarr_store_names_the_object_whoever_reads_or_writes_it(tmp_path, monkeypatch, number):
    import numpy as np
    from zarr.storage import LocalStore

    url = str(tmp_path / "a.zarr")
    zarr_arrays.create_group(url, [ARRAY], {})
    zarr_arrays.write_shards(url, "values", [slice(0, 8)], np.ones(8, "float32"))
    opened = zarr_arrays.open_group(url, "")
    with monkeypatch.context() as broken:
        broken.setattr(LocalStore, "get", failing(number))
        with pytest.raises(StoreError, match=r"a\.zarr/values/\S+: cannot be read: ") as read:
            opened["values"].values  # noqa: B018  # xarray reads it here
    with monkeypatch.context() as broken:
        broken.setattr(LocalStore, "set", failing(number))
        with pytest.raises(StoreError, match=r"a\.zarr/values: cannot be written: ") as written:
            zarr_arrays.write_shards(url, "values", [slice(0, 8)], np.ones(8, "float32"))
        with pytest.raises(StoreError, match=r"zarr\.json: cannot be written: "):
            zarr_arrays.create_group(str(tmp_path / "b.zarr"), [ARRAY], {})
    for caught in (read, written):
        assert NUMBERS[number] in str(caught.value)
        assert is_one_line(str(pickle.loads(pickle.dumps(caught.value))))


FULL = """
import resource, sys
from pipeline import cli
sys.argv = ["soilweave", "ls", "--schema"]
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pipeline import files
sys.argv = ["soilweave", "x"]
def verb():
    files.write_bytes(sys.argv[2], b"x" * 1000)
cli.app = verb
sys.argv = ["soilweave", "x", "TARGET"]
cli.main()
"""


def test_a_disk_that_takes_no_more_is_told_by_the_system(tmp_path):
    """The system refuses the write itself, as it does on a full disk."""
    target = tmp_path / "report.html"
    script = FULL.replace("TARGET", str(target))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert is_one_line(done.stderr.strip()), done.stderr
    assert f"{target}: cannot be written: File too large" in done.stderr
    assert [*tmp_path.iterdir()] == []


# Packages.


def without(monkeypatch, *packages):
    """Let imports of packages fail as if they were not installed."""
    find = importlib.util.find_spec

    class Refusing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [n for n in sys.modules if n.partition(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refusing, *sys.meta_path])
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in packages else find(name, *a)
    )


DRIVERS = {
    "icechunk": ("gridzarr.GridZarrSource", "repo", {"icechunk": {"branch": "main"}}),
    "rasterio": ("raster.RasterSource", "a.tif", {}),
    "ismn": ("ismn.IsmnSource", "a.zip", {}),
    "earthaccess": (
        "smap.SmapL3Source",
        "https://data.earthdata.nasa.gov/SMAP_L3_SM_P_20191212_R19240_001.h5",
        {"login": "earthdata"},
    ),
}


def with_entry(snow: Path, driver: str, urlpath: str, more: dict) -> Path:
    """The experiment of the small world, whose forcing another driver reads."""
    catalog = snow.parent / "catalog.yaml"
    tree = yaml.safe_load(catalog.read_text())
    entry = tree["sources"]["cells"]
    mapping = {"mapping": entry["args"]["mapping"]}
    entry |= {"driver": driver, "args": mapping | {"urlpath": urlpath} | more}
    catalog.write_text(yaml.safe_dump(tree))
    return snow


@pytest.mark.parametrize("package", DRIVERS)
def test_a_missing_package_is_named_with_the_extra_to_install(monkeypatch, snow, package):
    driver, urlpath, more = DRIVERS[package]
    if "://" not in urlpath:
        urlpath = str(snow.parent / urlpath)
        Path(urlpath).mkdir() if package == "icechunk" else Path(urlpath).touch()
    experiment = load.load_experiment(str(with_entry(snow, driver, urlpath, more)))
    monkeypatch.setenv("EARTHDATA_TOKEN", "not-a-token")
    without(monkeypatch, package)
    monkeypatch.setattr(HTTPFileSystem, "_cache", {})
    from pipeline.catalog import intake_catalog

    with pytest.raises(SoilweaveError) as caught:
        intake_catalog.open_source(experiment, "cells")
    text = str(caught.value)
    assert is_one_line(text), text
    assert "which is not installed" in text
    assert "pip install 'soilweave[sources]'" in text


def test_a_package_that_cannot_be_loaded_is_not_called_missing():
    error = ImportError("libgdal.so.34: cannot open shared object file", name="rasterio")
    for each in (error, ModuleNotFoundError("No module named 'rasterio.x'", name="rasterio.x")):
        found = failures.explain(each)
        assert "the package rasterio cannot be loaded: " in found.reason
        assert "not installed" not in found.reason
        assert "pip install" not in found.remedy


def test_the_optional_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {re.match(r"[\w-]+", r)[0] for r in project["optional-dependencies"]["sources"]}
    # rasterio comes with rioxarray.
    known = {package for package, name in failures.OPTIONAL_PACKAGES.values() if name == "sources"}
    assert known == extra | {"rasterio"}


# Tasks of Ray, whose exceptions come back to the driver.


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/a"), None, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/a"), None, "Permission denied"),
        (ModuleNotFoundError("No module named 'nix'", name="nix"), ClusterError, "package nix"),
        (aiohttp.ServerDisconnectedError(), None, "the server closed the connection"),
    ],
)
def test_what_a_task_raises_is_one_of_our_errors(monkeypatch, error, kind, says):
    monkeypatch.setattr(ray_cluster, "node_address", lambda: "10.0.0.1")

    def task(item):
        raise error

    expected = kind or ray_cluster._StoreFailure
    with pytest.raises(expected) as caught:
        ray_cluster._run_task(task, {}, 0.0)
    ours = caught.value if kind else caught.value.args[0]
    assert says in str(ours)
    assert is_one_line(str(ours))


@pytest.mark.parametrize("status", [403, 404])
def test_a_source_that_fails_in_a_worker_is_named(snow, tmp_path, monkeypatch, status):
    """Its metadata were read; the values of a variable are refused when the task reads them."""
    from pipeline.prepare import block_task

    experiment = load.load_experiment(str(snow))

    def fail(*_args):
        info = aiohttp.RequestInfo(None, "GET", None, None)
        raise aiohttp.ClientResponseError(info, (), status=status)

    monkeypatch.setattr("pipeline.grid.remap.read_variables", fail)
    monkeypatch.setattr(block_task, "empty_receipt", lambda: {"unread": [], "outage": False})
    monkeypatch.setattr(block_task, "_site_cells", lambda url: None)
    block = schema.block_range(experiment.period).start
    url = str(tmp_path / "cube.zarr")
    receipt = block_task.write_block({"block": block}, experiment.model_dump_json(), url, True)
    [line] = receipt["unread"]
    assert is_one_line(line)
    assert line.startswith("catalog entry cells: ")
    assert f"({status})" in line


# What nobody expected.


def fault(monkeypatch, error: Exception, *arguments) -> tuple[int, str]:
    def raising():
        raise error

    monkeypatch.setattr(cli, "app", raising)
    return command(monkeypatch, *arguments)


def test_a_fault_of_ours_is_one_line_that_says_where_its_traceback_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PROVIDER_TOKEN", "s3cret-of-the-provider")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, said = fault(monkeypatch, KeyError("with s3cret-of-the-provider"), "run", "demo")
    assert status == 70
    assert is_one_line(said), said
    assert said.startswith("soilweave run: this is a fault of soilweave (KeyError: ")
    [kept] = tmp_path.iterdir()
    assert str(kept) in said
    assert "Traceback" in kept.read_text()
    assert "s3cret" not in said + kept.read_text()


def test_a_fault_is_told_where_no_file_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    status, said = fault(monkeypatch, ValueError("two\nlines"), "run")
    assert (status, is_one_line(said)) == (70, True)
    assert "--debug" in said


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["soilweave", "run", "--debug"])
    monkeypatch.setattr(cli, "app", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        cli.main()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/spill/x"), "/spill/x"),
        (MemoryError(), "not enough memory"),
        (socket.gaierror(-2, "Name or service not known"), "cannot be found"),
        (ssl.SSLCertVerificationError("certificate verify failed"), "certificate"),
        (ModuleNotFoundError("No module named 'icechunk'", name="nix"), "package nix"),
    ],
)
def test_what_the_environment_lacks_is_no_fault_of_ours(monkeypatch, error, says):
    status, said = fault(monkeypatch, error, "run", "demo")
    assert (status, is_one_line(said)) == (2, True), said
    assert says in said
    assert "fault of soilweave" not in said


def test_the_cause_of_a_task_is_told_rather_than_ray():
    from ray.exceptions import RayTaskError

    full = StoreError("/ws/a", "cannot be written: No space left on device")
    for cause, status in ((full, 2), (KeyError("nix"), 70)):
        error = RayTaskError("task", "Traceback of the worker", cause, "", 1, "10.0.0.1")
        message, code = last_resort.describe(error.as_instanceof_cause())
        assert code == status
        assert is_one_line(message)
        assert str(cause).partition(":")[0].strip("'") in message


def test_own_modules_are_never_called_missing_packages():
    error = ModuleNotFoundError("No module named 'pipeline.nix'", name="pipeline.nix")
    assert last_resort.as_correctable(error) is None


def test_a_local_file_that_the_system_refuses_is_not_a_server(tmp_path):
    for number in (errno.EIO, errno.EMFILE, errno.ENOSPC):
        with (
            pytest.raises(DataError) as caught,
            http_errors.plain_http_errors(str(tmp_path / "a.nc")),
        ):
            raise OSError(number, os.strerror(number))
        assert f"a.nc: cannot be read: {NUMBERS[number]}" in str(caught.value)
        assert "server" not in str(caught.value)
