"""Submit a verb as a job on a Ray cluster, and follow its log to the end.

The upload is one folder with the code, the resolved experiment, and the catalogs, recipe and
regions that are local files. Data, keys and tokens are not uploaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shlex
import shutil
import tempfile
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from pipeline import files
from pipeline.catalog import entries as catalog_entries
from pipeline.catalog import intake_catalog
from pipeline.cluster import connect, malloc
from pipeline.errors import ConfigError
from pipeline.experiment import load, shipped_models
from pipeline.experiment.folds_config import REGIONS
from pipeline.storage import provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ray.job_submission import JobDetails, JobSubmissionClient


JOB_VERBS = ("run", "prepare", "train", "predict", "evaluate", "update")  # that can run as jobs
LOCAL_DASHBOARD = "http://127.0.0.1:8265"
PACKAGES = ("model", "pipeline", "catalogs")
# Our upload is 3 MB, 5 with models; Ray's own limit, 100 MiB, would let a data set pass.
MAX_UPLOAD_MB = 8
ROLES = ("forcing", "static", "satellite", "insitu", "truth")
REQUEST_TIMEOUT_S = 30.0  # Ray's own client waits for a silent host for ever
UPLOAD_TIMEOUT_S = 300.0
QUIET_S = 60.0  # a connection without data for so long may be dead, and is opened again
PATIENCE_S = 60.0  # a server that does not answer for so long is given up
PAUSE_S = 0.5  # between two requests
NO_DASHBOARD = "Version check returned 404"  # in Ray's error for another HTTP server
COMMAND_NOT_FOUND = 127  # a shell's exit status
UNKNOWN_JOB = "status code 404"  # in Ray's error for a job that does not exist
CHATTY_LOGGERS = (
    "dashboard.modules.dashboard_sdk",
    "dashboard.modules.job.sdk",
    "_private.runtime_env",
)


@dataclass(frozen=True)
class JobSpec:
    """A command `soilweave VERB EXPERIMENT` with its options, to run as a job.

    Attributes:
      experiment: A preset, a YAML file or a URL.
      verb: One of VERBS.
      workspace: URL, or absolute path that all nodes share.
      name: Folder in the workspace; None for the experiment's own name.
      overwrite: Replace artefacts that were made with other settings.
      settings: `key=value` items that override settings of the experiment.
    """

    experiment: str
    verb: str
    workspace: str
    name: str | None = None
    overwrite: bool = False
    settings: tuple[str, ...] = ()


def dashboard_url(address: str | None = None) -> str:
    """Return the URL of the dashboard that jobs are submitted to.

    It is `address`, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else this machine's.

    Raises:
      ConfigError: If it is another kind of Ray address.
    """
    url = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not url and os.environ.get("RAY_ADDRESS") not in (None, "", "auto", "local"):
        url = os.environ["RAY_ADDRESS"]
    url = (url or LOCAL_DASHBOARD).rstrip("/")
    parts = urlsplit(url if "://" in url else f"//{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        hint = f"give --address http://{parts.hostname or 'HEAD'}:8265"
        raise ConfigError(
            url, "is no URL of a Ray dashboard, which jobs are submitted to", remedy=hint
        )
    return url


def submit_job(spec: JobSpec, address: str) -> str:
    """Upload what a verb needs, start it as a job, and return the job's id.

    Args:
      spec: The verb and its options.
      address: URL of the cluster's dashboard.

    Raises:
      ConfigError: If the verb cannot run as a job with these options, or the cluster refuses it.
    """
    _check_spec(spec)
    with tempfile.TemporaryDirectory(prefix="soilweave-") as folder:
        name = collect_upload(spec, Path(folder))
        job = f"{name}-{secrets.token_hex(4)}"
        parts = ["python", "-m", "pipeline", spec.verb, "experiment.yaml"]
        parts += ["--workspace", spec.workspace, *(["--overwrite"] if spec.overwrite else [])]
        with _explain_refusals(address):
            submit = partial(
                _make_client(address).submit_job,
                entrypoint=shlex.join(parts),
                submission_id=job,
                # This machine's environment is not passed on: nodes have their own keys and tokens.
                runtime_env={"working_dir": folder, "env_vars": malloc.MALLOC_SETTINGS},
                metadata={"soilweave": spec.verb, "name": name, "workspace": spec.workspace},
            )
            _call(submit, UPLOAD_TIMEOUT_S)
    return job


def _check_spec(spec: JobSpec) -> None:
    """Check that a verb can run as a job with its options.

    Raises:
      ConfigError: If it cannot.
    """
    if spec.verb not in JOB_VERBS:
        hint = f"verbs that run as jobs: {', '.join(JOB_VERBS)}"
        raise ConfigError(f"--verb {spec.verb}", "cannot run as a job", remedy=hint)
    if spec.verb == "update" and spec.overwrite:
        raise ConfigError("--overwrite", "update replaces no artefact", remedy="leave it out")
    option = f"--workspace {spec.workspace}"
    if "://" not in spec.workspace and not os.path.isabs(spec.workspace):
        hint = (
            "give a URL (s3://BUCKET/FOLDER), or the absolute path of a folder that all nodes share"
        )
        raise ConfigError(option, "a relative path is another folder on every node", remedy=hint)
    if urlsplit(spec.workspace).password:
        hint = "leave it out; nodes take keys from their own environment"
        raise ConfigError(
            "--workspace", "its password would be visible to everyone who sees the job", remedy=hint
        )


def collect_upload(spec: JobSpec, folder: Path) -> str:
    """Copy what a job needs into a folder, and return the experiment's name.

    These are the code and its commit, the resolved experiment, and the catalogs, recipe and regions
    that are local files.

    Raises:
      ConfigError: If the experiment is not valid (all problems are listed), a file is not found, or
        the upload is too large.
    """
    tree = load.load_experiment(spec.experiment, spec.settings, spec.name).model_dump(mode="json")
    if _is_local(tree["recipe"]):
        shutil.copyfile(tree["recipe"], folder / "recipe.yaml")
        tree["recipe"] = "recipe.yaml"
    regions = tree["folds"]["by"]
    if regions not in REGIONS and "://" not in regions:
        if not files.exists(regions):
            raise ConfigError(f"folds.by {regions}", "not found", remedy="correct the path")
        shutil.copyfile(regions, folder / "regions.geojson")
        tree["folds"]["by"] = "regions.geojson"
    copied: dict[str, str] = {}
    sources = tree["sources"]
    sources["catalog"] = _copy_catalog(sources["catalog"], folder, copied)
    for section, key in ((sources, role) for role in ROLES):
        section[key] = _rename_entries(section[key], folder, copied)
    tree["baselines"] = _rename_entries(tree["baselines"], folder, copied)
    for section, key in ((tree, "cube"), (tree, "models"), (tree["planet"] or {}, "url")):
        # Nodes have another working directory, and the models that come with soilweave.
        if section.get(key) and section[key] not in shipped_models.list_names():
            section[key] = files.make_absolute(section[key])
    (folder / "experiment.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for package in PACKAGES:
        source = Path(__file__).resolve().parents[2] / package
        shutil.copytree(source, folder / package, ignore=ignored)
    if tree["models"] not in shipped_models.list_names():
        shutil.rmtree(folder / shipped_models.FOLDER)
    if commit := provenance.code_commit():
        (folder / "pipeline" / provenance.COMMIT_FILE).write_text(f"{commit}\n")
    _check_size(folder)
    return str(tree["name"])


def _copy_catalog(name: str, folder: Path, copied: dict[str, str]) -> str:
    """Copy a catalog that is a local file, and those nested in it; return its name there.

    Presets and URLs are returned as they are. `copied` maps the catalogs copied so far to their
    names.
    """
    if "://" in name:
        return name
    path = intake_catalog.catalog_url(name)
    if not _is_local(name):
        return name
    if name not in copied:
        copied[name] = f"catalog-{len(copied)}.yaml" if copied else "catalog.yaml"
        entries = catalog_entries.read_entries(path)
        for key, spec in entries.items():
            if inner := intake_catalog.nested_catalog_url(files.make_absolute(name), key, spec):
                inner_name = _copy_catalog(inner, folder, copied)
                spec["args"]["path"] = (
                    inner_name if "://" in inner_name else "{{CATALOG_DIR}}/" + inner_name
                )
        tree = {"metadata": {"version": 1}, "sources": entries}
        (folder / copied[name]).write_text(yaml.safe_dump(tree, sort_keys=False))
    return copied[name]


def _rename_entries(entries: Any, folder: Path, copied: dict[str, str]) -> Any:
    """Return entries (`FILE.yaml:name`) with local catalogs named as in the folder."""
    if isinstance(entries, list):
        return [_rename_entries(entry, folder, copied) for entry in entries]
    if entries is None:
        return None
    file, colon, name = str(entries).rpartition(":")
    return f"{_copy_catalog(file, folder, copied)}:{name}" if colon and _is_local(file) else entries


def _is_local(name: str) -> bool:
    """Return whether a recipe or a catalog is a local file rather than a preset or a URL."""
    return "://" not in name and name.endswith((".yaml", ".yml"))


def _check_size(folder: Path) -> None:
    """Check that the upload is small.

    Raises:
      ConfigError: If it is larger than LIMIT_MB; it names the largest files.
    """
    size = {p: p.stat().st_size / 2**20 for p in folder.rglob("*") if p.is_file()}
    if (total := sum(size.values())) > MAX_UPLOAD_MB:
        largest = sorted(size, key=lambda p: -size[p])[:3]
        names = ", ".join(f"{p.relative_to(folder)} {size[p]:.1f} MB" for p in largest)
        problem = f"{total:.1f} MB, at most {MAX_UPLOAD_MB}; the largest: {names}"
        raise ConfigError("upload", problem, remedy="move data out of the packages")


def follow_job(job: str, address: str, write: Callable[[str], None]) -> int:
    """Follow a job's log to its end, over lost connections; return the job's exit status.

    Args:
      job: The job's id.
      address: URL of the cluster's dashboard.
      write: Called with every line of the log, once.

    Raises:
      ConfigError: If there is no such job, or the dashboard does not answer for PATIENCE_S seconds.
    """
    with _explain_refusals(address):
        client = _make_client(address)
        job_id = _find_job(client, job, address)
    return _exit_status(asyncio.run(_follow_log(client, job_id, address, write)), write)


def _find_job(client: JobSubmissionClient, job: str, address: str) -> str:
    """Return the id that a job was submitted with.

    Raises:
      ConfigError: If there is no such job; it lists the latest jobs.
    """
    try:
        details: JobDetails = _call(partial(client.get_job_info, job))
        if details.submission_id:
            return details.submission_id
    except RuntimeError as error:
        if UNKNOWN_JOB not in str(error):
            raise
    jobs = [d for d in _call(client.list_jobs) if "soilweave" in (d.metadata or {})]
    latest = sorted(jobs, key=lambda d: -(d.start_time or 0))[:5]
    names = ", ".join(f"{d.submission_id} ({d.status.value})" for d in latest)
    raise ConfigError(f"job {job}", f"not found on {address}", remedy=f"latest: {names or 'none'}")


async def _follow_log(
    client: Any, job: str, address: str, write: Callable[[str], None]
) -> JobDetails:
    """Follow the log until the job ends, connecting again if needed; return its details."""
    log = _LogWriter(write)
    while not (details := await _job_details(client, job, address)).status.is_terminal():
        await _tail_log(client, job, log)
        await asyncio.sleep(PAUSE_S)
    log.begin()
    try:
        text = await _call_async(partial(client.get_job_logs, job))
    except (OSError, RuntimeError):
        text = ""  # the log was lost with its node
    log.add(text)
    log.end()
    return details


async def _job_details(client: Any, job: str, address: str) -> JobDetails:
    """Return the details of a job; wait if the dashboard is away for a while."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with _explain_refusals(address, f"; follow again with --follow {job}"):
            try:
                details: JobDetails = await _call_async(partial(client.get_job_info, job))
                return details
            except (OSError, RuntimeError) as error:
                if UNKNOWN_JOB in str(error) or time.monotonic() > deadline:
                    raise
        await asyncio.sleep(PAUSE_S)


async def _tail_log(client: Any, job: str, log: _LogWriter) -> None:
    """Follow the log on one connection until it ends or is quiet for QUIET_S seconds."""
    from aiohttp import ClientError

    log.begin()
    async with contextlib.aclosing(client.tail_job_logs(job)) as parts:
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    part = await anext(parts)
            except (StopAsyncIteration, ClientError, OSError, RuntimeError):
                return
            log.add(part)


class _LogWriter:
    """Writes whole lines of a log, each once, although every connection sends all of it.

    Attributes:
      position: Number of characters that the present connection has sent.
      seen: Number of characters that any connection has sent.
      rest: The last line, as long as it is incomplete.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        """Write lines with `write`."""
        self.write, self.position, self.seen, self.rest = write, 0, 0, ""

    def begin(self) -> None:
        """Begin a connection, which sends the log from the start."""
        self.position = 0

    def add(self, text: str) -> None:
        """Take the next piece of text of the present connection."""
        new = text[max(0, self.seen - self.position) :]
        self.position += len(text)
        self.seen = max(self.seen, self.position)
        *lines, self.rest = (self.rest + new).split("\n")
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Write the last line if it has no line feed."""
        if self.rest:
            self.write(self.rest)


def _exit_status(details: JobDetails, write: Callable[[str], None]) -> int:
    """Return the job's exit status as a shell does; if it is not 0, write the reason."""
    job, status = details.submission_id, details.status.value
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        write(f"job {job}: stopped")
        return 130  # the status of an interrupted command in a shell
    code = details.driver_exit_code
    reason = details.message or "no reason given"
    if code is not None:
        reason = reason.partition(", last available logs")[0]  # these lines have been written
    for line in reason.splitlines():
        write(f"job {job}: {line}")
    if code == COMMAND_NOT_FOUND:
        hint = "start Ray on the head from the environment in which soilweave is installed"
        write(f"job {job}: the shell of the cluster does not find `python`; {hint}")
    return (128 - code if code < 0 else code) if code else 1


def _make_client(address: str) -> JobSubmissionClient:
    """Return a client of the dashboard, which has answered."""
    from ray.job_submission import JobSubmissionClient

    for module in CHATTY_LOGGERS:
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    # Ray prefers the environment to the argument.
    environment = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        client: JobSubmissionClient = _call(partial(JobSubmissionClient, address))
    finally:
        os.environ |= environment
    return client


def _start(request: Callable[[], Any]) -> Future[Any]:
    """Start a request of Ray's client in a thread that does not keep this process alive."""
    result: Future[Any] = Future()
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result.set_result(request())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result


def _call(request: Callable[[], Any], seconds: float | None = None) -> Any:
    """Return the result of a request of Ray's client, which has no time limit of its own.

    Raises:
      TimeoutError: If there is none within `seconds`, by default REQUEST_TIMEOUT_S.
    """
    seconds = seconds or REQUEST_TIMEOUT_S
    result = _start(request)
    if not wait([result], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return result.result()


async def _call_async(request: Callable[[], Any]) -> Any:
    """Return the result of a request as `_call` does, without blocking other coroutines."""
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        return await asyncio.wrap_future(_start(request))


@contextlib.contextmanager
def _explain_refusals(address: str, hint: str = "") -> Iterator[None]:
    """Turn errors of the connection and refusals of the cluster into ConfigError."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        problem = str(error).strip().splitlines()[0][:300]
        raise ConfigError(address, problem, remedy=connect.TOKEN_REMEDY) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        remedy = f"start one with `ray start --head`, or give --address http://HEAD:8265{hint}"
        raise ConfigError(address, _explain_request(error), remedy=remedy) from error


def _explain_request(error: Exception) -> str:
    """Return what a failed request of Ray's client means."""
    if isinstance(error, KeyError | json.JSONDecodeError) or NO_DASHBOARD in str(error):
        return "no Ray dashboard: what answers there does not tell its version of Ray"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if not isinstance(error, OSError):
        return f"refuses: {lines[-1][:300]}"
    cause: BaseException = error  # Ray's own message does not say why there is no connection
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    reason = getattr(cause, "strerror", None) or str(cause) or lines[-1]
    return f"no Ray dashboard answers: {' '.join(str(reason).split())[:300]}"
