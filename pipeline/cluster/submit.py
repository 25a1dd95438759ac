"""What a job needs, in one folder: the code, the experiment resolved, its catalogs and recipe.

A verb as a job of a Ray cluster: what it needs is uploaded, its log followed to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from pipeline import files
from pipeline.catalog import intake_catalog
from pipeline.cluster import malloc
from pipeline.errors import ConfigError
from pipeline.experiment import load
from pipeline.experiment.config import REGIONS
from pipeline.storage import artefacts, provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ray.job_submission import JobDetails, JobSubmissionClient


PACKAGES = ("model", "pipeline", "catalogs")
LIMIT_MB = 4  # ours are under one; Ray's own limit, 100 MiB, would let a data set pass
ROLES = ("forcing", "static", "satellite", "insitu", "truth")


@dataclass(frozen=True)
class Order:
    """`soilweave VERB EXPERIMENT` with its options, to run as a job."""

    experiment: str
    verb: str
    workspace: str
    name: str | None = None
    overwrite: bool = False
    settings: tuple[str, ...] = ()


def gather(order: Order, folder: Path) -> str:
    """Put what a job needs into a folder: the code, its commit, the experiment resolved.

    Catalogs, a recipe and regions that are local files come along. Returns the experiment's name.

    Raises:
      ConfigError: listing every problem of the experiment, or what makes the upload too large.
    """
    tree = load.experiment(order.experiment, order.settings, order.name).model_dump(mode="json")
    if _is_local(tree["recipe"]):
        shutil.copyfile(tree["recipe"], folder / "recipe.yaml")
        tree["recipe"] = "recipe.yaml"
    regions = tree["folds"]["by"]
    if regions not in REGIONS and "://" not in regions:
        if not files.exists(regions):
            raise ConfigError(f"folds.by {regions}", "not found", remedy="correct the path")
        shutil.copyfile(regions, folder / "regions.geojson")
        tree["folds"]["by"] = "regions.geojson"
    brought: dict[str, str] = {}
    sources = tree["sources"]
    sources["catalog"] = _brought(sources["catalog"], folder, brought)
    for section, key in ((sources, role) for role in ROLES):
        section[key] = _renamed(section[key], folder, brought)
    tree["baselines"] = _renamed(tree["baselines"], folder, brought)
    for section, key in ((tree, "cube"), (tree, "models"), (tree["planet"] or {}, "url")):
        if section.get(key):  # nodes have another working directory
            section[key] = files.absolute(section[key])
    (folder / "experiment.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for package in PACKAGES:
        source = Path(__file__).resolve().parents[2] / package
        shutil.copytree(source, folder / package, ignore=ignored)
    if found := artefacts.git_commit():
        (folder / "pipeline" / provenance.RECORD).write_text(f"{found}\n")
    _check_size(folder)
    return str(tree["name"])


def _brought(name: str, folder: Path, brought: dict[str, str]) -> str:
    """A catalog's name in the folder; local files, and those nested in them, are copied there."""
    if "://" in name:
        return name
    found = intake_catalog.locate(name)
    if not _is_local(name):
        return name
    if name not in brought:
        brought[name] = f"catalog-{len(brought)}.yaml" if brought else "catalog.yaml"
        tree = yaml.safe_load(files.read_bytes(found))
        for spec in (tree.get("sources") or {}).values():
            if inner := intake_catalog.nested(files.absolute(name), spec):
                here = _brought(inner, folder, brought)
                spec["args"]["path"] = here if "://" in here else "{{CATALOG_DIR}}/" + here
        (folder / brought[name]).write_text(yaml.safe_dump(tree, sort_keys=False))
    return brought[name]


def _renamed(entries: Any, folder: Path, brought: dict[str, str]) -> Any:
    """Entries of local catalogs (`FILE.yaml:name`) by the catalogs' names in the folder."""
    if isinstance(entries, list):
        return [_renamed(entry, folder, brought) for entry in entries]
    if entries is None:
        return None
    file, colon, name = str(entries).rpartition(":")
    return f"{_brought(file, folder, brought)}:{name}" if colon and _is_local(file) else entries


def _is_local(name: str) -> bool:
    """Whether a recipe or a catalog is a local file, not a preset or a URL."""
    return "://" not in name and name.endswith((".yaml", ".yml"))


def _check_size(folder: Path) -> None:
    size = {p: p.stat().st_size / 2**20 for p in folder.rglob("*") if p.is_file()}
    if (total := sum(size.values())) > LIMIT_MB:
        largest = sorted(size, key=lambda p: -size[p])[:3]
        told = ", ".join(f"{p.relative_to(folder)} {size[p]:.1f} MB" for p in largest)
        found = f"{total:.1f} MB, at most {LIMIT_MB}; the largest: {told}"
        raise ConfigError("upload", found, remedy="move data out of the packages")


VERBS = ("run", "prepare", "train", "predict", "evaluate", "update")
DASHBOARD = "http://127.0.0.1:8265"
TIMEOUT_S = (5, 30)  # of a request: to connect, between two bytes
QUIET_S = 60.0  # a connection that says nothing for so long may be dead: it is made anew
PATIENCE_S = 60.0  # a server that has not answered for so long is given up
PAUSE_S = 0.5
CHATTY = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env")
UNKNOWN = "status code 404"


def dashboard(address: str | None = None) -> str:
    """URL of the dashboard that takes jobs: as given, by the environment, or this machine's.

    Raises:
      ConfigError: it is another kind of Ray address.
    """
    found = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not found and os.environ.get("RAY_ADDRESS") not in (None, "", "auto", "local"):
        found = os.environ["RAY_ADDRESS"]
    found = (found or DASHBOARD).rstrip("/")
    parts = urlsplit(found if "://" in found else f"//{found}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        remedy = f"give --address http://{parts.hostname or 'HEAD'}:8265"
        raise ConfigError(found, "is no URL of a Ray dashboard, which takes jobs", remedy=remedy)
    return found


def submit(order: Order, address: str) -> str:
    """Upload what a verb needs and start it as a job of a dashboard's cluster; returns its id.

    Raises:
      ConfigError: the order cannot be carried out, or the cluster does not take it.
    """
    _check(order)
    with tempfile.TemporaryDirectory(prefix="soilweave-") as folder:
        name = gather(order, Path(folder))
        job = f"{name}-{secrets.token_hex(4)}"
        parts = ["python", "-m", "pipeline", order.verb, "experiment.yaml"]
        parts += ["--workspace", order.workspace, *(["--overwrite"] if order.overwrite else [])]
        with _refusals(address):
            _client(address).submit_job(
                entrypoint=shlex.join(parts),
                submission_id=job,
                # Nothing of this machine's environment: nodes have keys and tokens of their own.
                runtime_env={"working_dir": folder, "env_vars": malloc.SETTINGS},
                metadata={"soilweave": order.verb, "name": name, "workspace": order.workspace},
            )
    return job


def follow(job: str, address: str, write: Callable[[str], None]) -> int:
    """Follow a job's log to its end, over lost connections; returns the job's exit status.

    `write` takes one line after the other, each once.

    Raises:
      ConfigError: there is no such job, or its server does not answer any more.
    """
    with _refusals(address):
        client = _client(address)
        known = _find(client, job, address)
    return _status(asyncio.run(_follow(client, known, address, write)), write)


def _check(order: Order) -> None:
    if order.verb not in VERBS:
        accepted = f"verbs that run as jobs: {', '.join(VERBS)}"
        raise ConfigError(f"--verb {order.verb}", "cannot run as a job", remedy=accepted)
    if order.verb == "update" and order.overwrite:
        raise ConfigError("--overwrite", "an update replaces nothing", remedy="leave it out")
    place = f"--workspace {order.workspace}"
    if "://" not in order.workspace and not os.path.isabs(order.workspace):
        remedy = "give a URL (s3://BUCKET/FOLDER), or the absolute path of a folder they share"
        raise ConfigError(place, "a relative path is another place on every node", remedy=remedy)
    if urlsplit(order.workspace).password:
        remedy = "leave it out; nodes have keys in their own environment"
        raise ConfigError("--workspace", "whoever sees the job sees its password", remedy=remedy)


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        # Ray's own sets no limit, and waits for a silent host for ever.
        def _do_request(self, *args: Any, **options: Any) -> Any:
            return super()._do_request(*args, timeout=TIMEOUT_S, **options)

    for module in CHATTY:
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    # To Ray the environment counts more than the argument.
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        return Client(address)
    finally:
        os.environ |= before


@contextlib.contextmanager
def _refusals(address: str, hint: str = "") -> Iterator[None]:
    """What goes wrong between here and the cluster, in our words."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        remedy = "set RAY_AUTH_MODE and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on the cluster"
        found = str(error).strip().splitlines()[0]
        raise ConfigError(address, found, remedy=remedy) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        remedy = f"start one with `ray start --head`, or give --address http://HEAD:8265{hint}"
        answers = "no Ray dashboard answers" if isinstance(error, OSError) else "refuses"
        raise ConfigError(address, f"{answers}: {lines[-1][:300]}", remedy=remedy) from error


def _find(client: JobSubmissionClient, job: str, address: str) -> str:
    """The id that the job was submitted with."""
    try:
        if found := client.get_job_info(job).submission_id:
            return found
    except RuntimeError as error:
        if UNKNOWN not in str(error):
            raise
    jobs = [d for d in client.list_jobs() if "soilweave" in (d.metadata or {})]
    latest = sorted(jobs, key=lambda d: -(d.start_time or 0))[:5]
    told = ", ".join(f"{d.submission_id} ({d.status.value})" for d in latest)
    raise ConfigError(f"job {job}", f"not found on {address}", remedy=f"latest: {told or 'none'}")


class _Log:
    """Whole lines of a log, each once, although every connection tells it from its start."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write, self.place, self.told, self.rest = write, 0, 0, ""

    def begin(self) -> None:
        self.place = 0

    def add(self, text: str) -> None:
        new = text[max(0, self.told - self.place) :]
        self.place += len(text)
        self.told = max(self.told, self.place)
        *lines, self.rest = (self.rest + new).split("\n")
        for line in lines:
            self.write(line)

    def end(self) -> None:
        if self.rest:
            self.write(self.rest)


async def _follow(client: Any, job: str, address: str, write: Callable[[str], None]) -> JobDetails:
    log = _Log(write)
    while not (details := await _details(client, job, address)).status.is_terminal():
        await _tail(client, job, log)
        await asyncio.sleep(PAUSE_S)
    log.begin()
    try:
        whole = await asyncio.to_thread(client.get_job_logs, job)
    except (OSError, RuntimeError):
        whole = ""  # it went with its node
    log.add(whole)
    log.end()
    return details


async def _details(client: Any, job: str, address: str) -> JobDetails:
    """Where the job stands; waits for a server that is away for a while."""
    until = time.monotonic() + PATIENCE_S
    while True:
        with _refusals(address, f"; follow again with --follow {job}"):
            try:
                return await asyncio.to_thread(client.get_job_info, job)
            except (OSError, RuntimeError) as error:
                if UNKNOWN in str(error) or time.monotonic() > until:
                    raise
        await asyncio.sleep(PAUSE_S)


async def _tail(client: Any, job: str, log: _Log) -> None:
    """Follow the log on one connection until that ends, whatever ends it, or is quiet for long."""
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


def _status(details: JobDetails, write: Callable[[str], None]) -> int:
    """The job's exit status as a shell would have it; says why where it is not 0."""
    job, status = details.submission_id, details.status.value
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        write(f"job {job}: stopped")
        return 130  # as a shell says of what was interrupted
    code = details.driver_exit_code
    reason = details.message or "no reason given"
    if code is not None:
        reason = reason.partition(", last available logs")[0]  # which have been written
    for line in reason.splitlines():
        write(f"job {job}: {line}")
    return (128 - code if code < 0 else code) if code else 1
