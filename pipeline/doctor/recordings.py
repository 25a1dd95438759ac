"""Record what servers answer when a window of an entry is read, and replay it offline.

Every entry gets a folder: recording.json (what was read, when and by which version), catalog.yaml
(the entry), exchanges.json and bodies/ (requests and answers, without secrets). Each entry is read
in a process of its own, through a gateway in this process, so that nothing is cached from an entry
read before.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

import pipeline
from pipeline import catalog, files, store
from pipeline.doctor import admission, proof
from pipeline.doctor.cases import Case
from pipeline.doctor.symptoms import Symptom, of_error
from pipeline.errors import SECRET, ConfigError, DataError, SoilweaveError
from pipeline.recording import clients, gateway, redaction
from pipeline.recording.exchanges import Exchanges
from pipeline.sources import drivers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.doctor.cases import Period
    from pipeline.doctor.proof import Region
    from pipeline.files import Json
    from pipeline.progress import Progress

RECORD, CATALOG = "recording.json", "catalog.yaml"
# Environment variables kept besides those that the entry names: they say where S3 is.
PLACES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION")
CREDENTIALS = ("EARTHDATA_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
LOCAL = "no server was asked; local files do not prove that a live source can be read"


class Row(NamedTuple):
    """The result of recording or replaying one entry.

    Attributes:
      label: name of the entry, or of the recording's folder.
      days: days that were recorded, or the date of the recording.
      status: `recorded`, `not recorded`, `replayed`, or empty.
      summary: what was read, or why nothing was.
      findings: what is wrong.
    """

    label: str
    days: str
    status: str
    summary: str
    findings: list[Symptom]


class Wanted(NamedTuple):
    """What to read.

    Attributes:
      case: the entry.
      period: first and last day; None for all.
      region: west, south, east, north in degrees; None for all.
      environment: environment variables of a replay; None for a recording, which uses its own.
    """

    case: Case
    period: Period | None
    region: Region | None
    environment: dict[str, str] | None = None


def is_recording(folder: str) -> bool:
    """Return whether a folder contains recordings."""
    return "://" not in folder and any(Path(folder).glob(f"*/{RECORD}"))


def record(cases: Sequence[Case], folder: str, progress: Progress) -> list[Row]:
    """Read a window of every entry over HTTP and save the answers, in a folder for each entry.

    Args:
      cases: the entries.
      folder: local folder of the recordings.
      progress: advanced by every entry.

    Raises:
      ConfigError: If the folder is a URL.
    """
    if "://" in folder:
        raise ConfigError(f"--record {folder}", "is a URL", remedy="give a folder on this machine")
    files.check_writable(files.join(folder, RECORD))
    progress.start("record", len(cases), "entries")
    rows = []
    for case in cases:
        obstacles = admission.unfit(case)
        if obstacles and all(finding.check == "environment" for finding in obstacles):
            # Such an entry reads a local folder that this machine does not have: not a problem.
            unset = "; ".join(finding.message for finding in obstacles)
            rows.append(Row(case.label, "", "not recorded", unset, []))
        elif obstacles:
            rows.append(Row(case.label, "", "not recorded", "", obstacles))
        else:
            name = case.label.replace("/", "_").replace(":", "_")
            rows.append(_recorded(case, Path(folder) / name))
        progress.advance()
    progress.finish(f"{sum(row.status == 'recorded' for row in rows)} entries recorded in {folder}")
    return rows


def replay(folder: str, progress: Progress) -> list[Row]:
    """Read every recorded entry again, from the recording alone, and compare the values."""
    folders = sorted(path.parent for path in Path(folder).glob(f"*/{RECORD}"))
    progress.start("replay", len(folders), "recordings")
    rows = []
    for recording_folder in folders:
        rows.append(_replayed(recording_folder))
        progress.advance()
    progress.finish(f"{len(folders)} recordings replayed")
    return rows


def verified(folder: str) -> list[str]:
    """Return a line for every recording: the `verified:` that its entry may have in the catalog."""
    lines = []
    for path in sorted(Path(folder).glob(f"*/{RECORD}")):
        recording = json.loads(path.read_text())
        name = recording["catalog"]
        place = f"catalog {name}, entry {recording['entry']}"
        is_file = "://" not in name and name.endswith((".yaml", ".yml"))
        try:
            url = str(Path(folder) / name) if is_file else name
            spec = catalog.find(url, recording["entry"]).spec
        except (SoilweaveError, OSError):
            lines.append(f"{place}: not found here")
            continue
        if not recording["proven"]:
            lines.append(f"{place}: not proven; keep `verified: false`")
        elif digest(spec) != recording["entry_sha256"]:
            lines.append(f"{place}: the entry has changed since; record it again")
        else:
            lines.append(f"{place}: verified: {recording['date']}")
    return lines


def digest(spec: Json) -> str:
    """Return a SHA-256 of how an entry is read: its driver and arguments, not its metadata."""
    # The published path, so that recordings stay valid when a driver moves.
    path = drivers.published_path(spec["driver"])
    return files.sha256_of([path, spec.get("args") or {}])


def _apart(gateway_url: str, request: Wanted) -> tuple[Json, list[Symptom]]:
    """Read an entry in a process of its own; return the description of its values, and findings."""
    # The fork server has imported everything and opened nothing. It has the environment of its own
    # start, so the present one is passed on.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    environment = dict(os.environ)
    if request.environment is not None:
        for name in PLACES:
            environment.pop(name, None)
        environment |= dict.fromkeys(CREDENTIALS, redaction.REMOVED) | request.environment
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_read, gateway_url, request, environment).result()
        except BrokenProcessPool:
            message = "the process that read it was killed, perhaps because it ran out of memory"
            return {}, [Symptom("opening", message, "run it on a machine with more memory")]


def _read(
    gateway_url: str, request: Wanted, environment: dict[str, str]
) -> tuple[Json, list[Symptom]]:
    """Read an entry through a gateway; runs in a process of its own."""
    os.environ.clear()
    os.environ.update(environment)
    case = request.case
    assert isinstance(case.entry, catalog.Found)
    with clients.through(gateway_url):
        try:
            parameters = catalog.parameters(case.experiment, case.entry) if case.experiment else {}
            values, mapped = proof.read(case.entry, parameters, request.period, request.region)
        except Exception as error:  # noqa: BLE001  # any error from an answer is a finding
            return {}, of_error(error)
    return proof.described(values), proof.problems(values, mapped, case)


def _recorded(case: Case, folder: Path) -> Row:
    """Record an entry; if it cannot be read, the recording shows that."""
    assert isinstance(case.entry, catalog.Found)
    period, region = proof.window(case)
    with gateway.serve() as server:
        description, findings = _apart(server.url, Wanted(case, period, region))
    if server.refused:
        hint = "record it with a smaller --set domain, or not at all"
        findings = [Symptom("recording", server.refused, hint)]
    days = "" if period is None else f"{period[0]}..{period[1]}"
    exchanges = server.exchanges
    if not exchanges.recorded:
        return Row(case.label, days, "not recorded", LOCAL if not findings else "", findings)
    recording = {
        "catalog": _named(case.entry.catalog, folder.parent),
        "entry": case.entry.name,
        "entry_sha256": digest(case.entry.spec),
        "date": str(datetime.now(UTC).date()),
        "soilweave": pipeline.__version__,
        "commit": store.git_commit(),
        "period": None if period is None else [str(day) for day in period],
        "region": region,
        "environment": _environment(case.entry.spec),
        "requests": len(exchanges.recorded),
        "bytes": exchanges.size,
        "proven": not findings,
        "symptoms": [list(finding) for finding in findings],
        "read": description,
    }
    if (folder / RECORD).exists():
        shutil.rmtree(folder)
    exchanges.save(folder)
    entry = redaction.of_tree(_catalog(case.entry))
    (folder / CATALOG).write_text(yaml.safe_dump(entry, sort_keys=False))
    (folder / RECORD).write_text(json.dumps(redaction.of_tree(recording), indent=1))
    _check_secrets(folder)
    size = f"{recording['requests']} requests, {exchanges.size / 1e6:.2f} MB"
    return Row(case.label, days, "recorded", f"{size}: {_names(description)}", findings)


def _replayed(folder: Path) -> Row:
    """Read an entry from its recording, without credentials and with no server but the gateway."""
    recording = json.loads((folder / RECORD).read_text())
    period = recording["period"] and tuple(date.fromisoformat(day) for day in recording["period"])
    region = recording["region"] and tuple(recording["region"])
    case = Case(folder.name, catalog.find(str(folder / CATALOG), recording["entry"]))
    try:
        exchanges = Exchanges.load(folder)
    except DataError as error:
        finding = Symptom("recording", "; ".join(error.problems), error.remedy)
        return Row(folder.name, recording["date"], "", "", [finding])
    request = Wanted(case, period, region, recording["environment"])
    with gateway.serve(exchanges) as server:
        description, findings = _apart(server.url, request)
    checks_before = [finding[0] for finding in recording["symptoms"]]
    if recording["read"] and description:
        findings = _differences(recording["read"], description)
    elif not recording["read"] and [finding.check for finding in findings] == checks_before:
        findings = []  # it fails in the same way as when it was recorded
    if findings and exchanges.unanswered:
        first = exchanges.unanswered[0]
        request_text = f"{first.method} {first.url} {dict(first.headers) or ''}".rstrip()
        message = f"has no answer to {request_text}"
        findings = [Symptom("recording", message, "record it again")]
    note = "" if recording["proven"] else "; not proven when recorded"
    return Row(folder.name, recording["date"], "replayed", _names(description) + note, findings)


def _differences(before: Json, now: Json) -> list[Symptom]:
    """Find variables and coordinates whose values differ from those that were recorded."""
    findings = []
    for key in ("variables", "coordinates"):
        for name in before[key] | now[key]:
            old, new = before[key].get(name), now[key].get(name)
            if old != new:
                message = f"{name}: was {_short(old)}, is {_short(new)}"
                hint = "find the change of the reader that causes this"
                findings.append(Symptom("values", message, hint))
    return findings


def _short(description: Json | None) -> str:
    """Return shape, units and digest of an array's description."""
    if description is None:
        return "not there"
    size = " x ".join(map(str, description["shape"]))
    text = f"{size} {description.get('units', '')} {description['sha256'][:12]}"
    return text.replace("  ", " ")


def _names(description: Json) -> str:
    """Return the names and shapes of the variables that were read."""
    variables = description.get("variables", {})
    return ", ".join(f"{name} {tuple(array['shape'])}" for name, array in variables.items())


def _named(url: str, folder: Path) -> str:
    """Return how a recording names its catalog.

    A shipped catalog has its name, a file its path from the folder of recordings, others their URL.
    """
    if "://" in url:
        return url
    path = Path(url)
    is_shipped = path.parent == Path(catalog.__file__).parents[1] / "catalogs"
    return path.stem if is_shipped else os.path.relpath(path, folder)


def _environment(spec: Json) -> dict[str, str]:
    """Return the environment variables that a replay of an entry needs, without secrets."""
    current = {name: os.environ[name] for name in PLACES if os.environ.get(name)}
    environment = {name: redaction.without(value) for name, value in current.items()}
    for name in catalog.ENVIRONMENT.findall(str(spec)):
        value = redaction.without(os.environ[name])
        is_secret = SECRET.search(name) or "://" not in value
        environment[name] = redaction.REMOVED if is_secret else value
    return environment


def _catalog(entry: catalog.Found) -> Json:
    """Return a catalog of an entry and of the entries that it is composed of."""
    siblings = catalog.tree(entry.catalog)
    references = [v for v in (entry.spec.get("args") or {}).values() if isinstance(v, str)]
    names = [entry.name, *(name for name in references if name in siblings)]
    return {"metadata": {"version": 1}, "sources": {name: siblings[name] for name in names}}


def _check_secrets(folder: Path) -> None:
    """Remove a recording that contains a secret in spite of the redaction.

    Raises:
      ConfigError: If there is one; names the file, not the secret.
    """
    secrets = redaction.known()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and any(secret.search(path.read_bytes()) for secret in secrets):
            shutil.rmtree(folder)
            problem = f"{path.name} contains a secret of this machine's environment or ~/.netrc"
            hint = "the recording was removed; record the entry without a login"
            raise ConfigError(str(folder), problem, remedy=hint)
