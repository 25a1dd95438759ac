"""Read a small window of an entry, and describe its values so that later reads can be compared.

Record what servers answer when a window of an entry is read, and replay it offline.

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
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

import pipeline
from pipeline import files
from pipeline.catalog import entries as catalog_entries
from pipeline.catalog import intake_catalog, templates
from pipeline.doctor import coverage, entries
from pipeline.doctor.entries import Case
from pipeline.doctor.findings import Finding, findings_from_error
from pipeline.doctor.recording import exchanges as recording_exchanges
from pipeline.doctor.recording import gateway
from pipeline.doctor.recording.exchanges import Exchanges
from pipeline.errors import SECRET_NAMES, ConfigError, DataError, SoilweaveError
from pipeline.sources import drivers
from pipeline.storage import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from pipeline.doctor.entries import Period
    from pipeline.files import Json
    from pipeline.progress import Progress


WINDOW_DAYS, WINDOW_DEGREES, WINDOW_SIDE, SAMPLE_POINTS = 3, 2.0, 16, 20  # the largest window

# Longitude and latitude of the window's centre if the entry covers it: on land, unlike the centres
# of many regions.
INLAND = (-98.0, 39.0)
CHANGED_HINT = "correct the entry's mapping, or ask the provider what has changed"
Region = tuple[float, float, float, float]  # west, south, east, north in degrees


def choose_window(case: Case) -> tuple[Period | None, Region | None]:
    """Choose the days and the box in which an entry is read; None means no restriction."""
    years, region, period = case.years(), case.region, None
    year = years[len(years) // 2] if years else None
    if year is not None:
        first = year[0] + (year[1] - year[0]) // 2
        period = first, min(year[1], first + timedelta(WINDOW_DAYS - 1))
    if case.metadata.get("support") == "site":
        return period, region
    west, south, east, north = region or (-180.0, -90.0, 180.0, 90.0)
    lon, lat = INLAND
    if not (west < lon < east and south < lat < north):
        lon, lat = (west + east) / 2, (south + north) / 2
    half = WINDOW_DEGREES / 2
    southwest = max(west, lon - half), max(south, lat - half)
    return period, (*southwest, min(east, lon + half), min(north, lat + half))


def read_window(
    entry: catalog_entries.CatalogEntry,
    parameters: dict[str, str],
    period: Period | None,
    region: Region | None,
) -> tuple[xr.Dataset, set[str]]:
    """Read a window of an entry.

    Args:
      entry: the catalog entry.
      parameters: values of its parameters.
      period: first and last day; None for a source without days.
      region: west, south, east, north in degrees; None for the whole source.

    Returns:
      The values, loaded, and the names of the variables in the entry's mapping.

    Raises:
      SoilweaveError: If the driver cannot read the entry. Errors of the libraries that the driver
        uses may pass through.
    """
    driver: Any = catalog_entries.make_driver(entry, parameters)
    driver.period, driver.region = period, region
    dataset: xr.Dataset = driver.to_dask()
    part = coverage.find_coverage(dataset, region)
    block = {}
    for dim, index in part.indices.items():
        over_region = index if index.size else np.arange(dataset.sizes[dim])
        most = SAMPLE_POINTS if dim == "place" else WINDOW_SIDE
        start = 0 if dim == "place" else max(0, (len(over_region) - most) // 2)
        block[dim] = over_region[start : start + most]
    sample = dataset.isel(block)
    if "time" in sample.dims and period is not None:
        sample = sample.sel(time=slice(*(np.datetime64(day, "ns") for day in period)))
    sample = sample.isel(time=slice(0, WINDOW_DAYS)) if "time" in sample.dims else sample
    values = sample.compute()
    dataset.close()
    return values, set(getattr(driver, "mapping", ()))


def describe_values(values: xr.Dataset) -> Json:
    """Describe every variable and coordinate: units, shape, range and SHA-256 of its bytes."""
    groups = {"variables": values.data_vars, "coordinates": values.coords}
    return {
        key: {str(name): _describe_array(array) for name, array in group.items()}
        for key, group in groups.items()
    }


def check_window(values: xr.Dataset, mapped: set[str], case: Case) -> list[Finding]:
    """Find why the values of a window do not prove that an entry can be read.

    Args:
      values: values of the window, loaded.
      mapped: names of the variables in the entry's mapping.
      case: the entry.
    """
    missing = sorted((mapped | case.required) - {str(name) for name in values.data_vars})
    findings = [Finding("variables", f"{name}: missing", CHANGED_HINT) for name in missing]
    known = values[[n for n in values.data_vars if "units" in values[n].attrs]]
    if table_problems := intake_catalog.table_problems(known, case.table):
        findings += findings_from_error(
            DataError(f"entry {case.label}", *table_problems, remedy=CHANGED_HINT)
        )
    for name, array in known.data_vars.items():
        finite = array.values[np.isfinite(array.values)]
        variable = case.table.get(str(name))
        if not finite.size:
            message = f"{name}: no value in the window, {dict(array.sizes)}"
            hint = "check that the source has data on these days, or try again later"
            findings.append(Finding("values", message, hint))
        elif variable and not (
            finite.min() >= variable.minimum and finite.max() <= variable.maximum
        ):
            spread = f"{finite.min():g} to {finite.max():g} {variable.units}"
            accepted = f"expected {variable.minimum:g} to {variable.maximum:g}"
            findings.append(Finding("range", f"{name}: {spread}, {accepted}", CHANGED_HINT))
    return findings


def _describe_array(array: xr.DataArray) -> Json:
    """Describe one array; text is hashed as its lines in UTF-8."""
    values = np.ascontiguousarray(array.values)
    is_text = values.dtype.kind in "OUS"
    content = "\n".join(map(str, values.ravel())).encode() if is_text else values.tobytes()
    description: Json = {
        "dims": [str(dim) for dim in array.dims],
        "shape": list(values.shape),
        "dtype": "text" if is_text else values.dtype.str,
        "sha256": files.sha256(content),
    }
    if "units" in array.attrs:
        description["units"] = str(array.attrs["units"])
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        description["finite"] = int(finite.size)
        if finite.size:
            description |= {"minimum": float(finite.min()), "maximum": float(finite.max())}
    return description


RECORD, CATALOG = "recording.json", "catalog.yaml"

# Environment variables kept besides those that the entry names: they say where S3 is.
S3_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION")
CREDENTIAL_VARIABLES = ("EARTHDATA_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
NO_SERVER_ASKED = "no server was asked; local files do not prove that a live source can be read"


class RecordingResult(NamedTuple):
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
    findings: list[Finding]


class ReadRequest(NamedTuple):
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


def record_entries(cases: Sequence[Case], folder: str, progress: Progress) -> list[RecordingResult]:
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
        obstacles = entries.find_obstacles(case)
        if obstacles and all(finding.check == "environment" for finding in obstacles):
            # Such an entry reads a local folder that this machine does not have: not a problem.
            unset = "; ".join(finding.message for finding in obstacles)
            rows.append(RecordingResult(case.label, "", "not recorded", unset, []))
        elif obstacles:
            rows.append(RecordingResult(case.label, "", "not recorded", "", obstacles))
        else:
            name = case.label.replace("/", "_").replace(":", "_")
            rows.append(_record_entry(case, Path(folder) / name))
        progress.advance()
    progress.finish(f"{sum(row.status == 'recorded' for row in rows)} entries recorded in {folder}")
    return rows


def replay_entries(folder: str, progress: Progress) -> list[RecordingResult]:
    """Read every recorded entry again, from the recording alone, and compare the values."""
    folders = sorted(path.parent for path in Path(folder).glob(f"*/{RECORD}"))
    progress.start("replay", len(folders), "recordings")
    rows = []
    for recording_folder in folders:
        rows.append(_replay_entry(recording_folder))
        progress.advance()
    progress.finish(f"{len(folders)} recordings replayed")
    return rows


def list_verified(folder: str) -> list[str]:
    """Return a line for every recording: the `verified:` that its entry may have in the catalog."""
    lines = []
    for path in sorted(Path(folder).glob(f"*/{RECORD}")):
        recording = json.loads(path.read_text())
        name = recording["catalog"]
        place = f"catalog {name}, entry {recording['entry']}"
        is_file = "://" not in name and name.endswith((".yaml", ".yml"))
        try:
            url = str(Path(folder) / name) if is_file else name
            spec = intake_catalog.find_entry(url, recording["entry"]).spec
        except (SoilweaveError, OSError):
            lines.append(f"{place}: not found here")
            continue
        if not recording["proven"]:
            lines.append(f"{place}: not proven; keep `verified: false`")
        elif entry_digest(spec) != recording["entry_sha256"]:
            lines.append(f"{place}: the entry has changed since; record it again")
        else:
            lines.append(f"{place}: verified: {recording['date']}")
    return lines


def entry_digest(spec: Json) -> str:
    """Return a SHA-256 of how an entry is read: its driver and arguments, not its metadata."""
    # The published path, so that recordings stay valid when a driver moves.
    path = drivers.published_path(spec["driver"])
    return files.sha256_of_json([path, spec.get("args") or {}])


def _read_in_process(gateway_url: str, request: ReadRequest) -> tuple[Json, list[Finding]]:
    """Read an entry in a process of its own; return the description of its values, and findings."""
    # The fork server has imported everything and opened nothing. It has the environment of its own
    # start, so the present one is passed on.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    environment = dict(os.environ)
    if request.environment is not None:
        for name in S3_VARIABLES:
            environment.pop(name, None)
        environment |= (
            dict.fromkeys(CREDENTIAL_VARIABLES, recording_exchanges.REMOVED) | request.environment
        )
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_read_through_gateway, gateway_url, request, environment).result()
        except BrokenProcessPool:
            message = "the process that read it was ended before it was done"
            hint = "see the system's log; if memory ran out, use a machine with more of it"
            return {}, [Finding("opening", message, hint)]


def _read_through_gateway(
    gateway_url: str, request: ReadRequest, environment: dict[str, str]
) -> tuple[Json, list[Finding]]:
    """Read an entry through a gateway; runs in a process of its own."""
    os.environ.clear()
    os.environ.update(environment)
    case = request.case
    assert isinstance(case.entry, catalog_entries.CatalogEntry)
    with gateway.route_through(gateway_url):
        try:
            parameters = (
                intake_catalog.entry_parameters(case.experiment, case.entry)
                if case.experiment
                else {}
            )
            values, mapped = read_window(case.entry, parameters, request.period, request.region)
        except Exception as error:  # noqa: BLE001  # any error from an answer is a finding
            return {}, findings_from_error(error)
    return describe_values(values), check_window(values, mapped, case)


def _record_entry(case: Case, folder: Path) -> RecordingResult:
    """Record an entry; if it cannot be read, the recording shows that."""
    assert isinstance(case.entry, catalog_entries.CatalogEntry)
    period, region = choose_window(case)
    with gateway.serve_gateway() as server:
        description, findings = _read_in_process(server.url, ReadRequest(case, period, region))
    if server.refused:
        hint = "record it with a smaller --set domain, or not at all"
        findings = [Finding("recording", server.refused, hint)]
    days = "" if period is None else f"{period[0]}..{period[1]}"
    exchanges = server.exchanges
    if not exchanges.recorded:
        return RecordingResult(
            case.label, days, "not recorded", NO_SERVER_ASKED if not findings else "", findings
        )
    recording = {
        "catalog": _catalog_name(case.entry.catalog, folder.parent),
        "entry": case.entry.name,
        "entry_sha256": entry_digest(case.entry.spec),
        "date": str(datetime.now(UTC).date()),
        "soilweave": pipeline.__version__,
        "commit": provenance.code_commit(),
        "period": None if period is None else [str(day) for day in period],
        "region": region,
        "environment": _replay_environment(case.entry.spec),
        "requests": len(exchanges.recorded),
        "bytes": exchanges.size,
        "proven": not findings,
        "symptoms": [list(finding) for finding in findings],
        "read": description,
    }
    if (folder / RECORD).exists():
        shutil.rmtree(folder)
    exchanges.save(folder)
    entry = recording_exchanges.remove_secrets_from_tree(_catalog_of_entry(case.entry))
    (folder / CATALOG).write_text(yaml.safe_dump(entry, sort_keys=False))
    (folder / RECORD).write_text(
        json.dumps(recording_exchanges.remove_secrets_from_tree(recording), indent=1)
    )
    _check_secrets(folder)
    size = f"{recording['requests']} requests, {exchanges.size / 1e6:.2f} MB"
    return RecordingResult(
        case.label, days, "recorded", f"{size}: {_summarise_variables(description)}", findings
    )


def _replay_entry(folder: Path) -> RecordingResult:
    """Read an entry from its recording, without credentials and with no server but the gateway."""
    recording = json.loads((folder / RECORD).read_text())
    period = recording["period"] and tuple(date.fromisoformat(day) for day in recording["period"])
    region = recording["region"] and tuple(recording["region"])
    case = Case(folder.name, intake_catalog.find_entry(str(folder / CATALOG), recording["entry"]))
    try:
        exchanges = Exchanges.load(folder)
    except DataError as error:
        finding = Finding("recording", "; ".join(error.problems), error.remedy)
        return RecordingResult(folder.name, recording["date"], "", "", [finding])
    request = ReadRequest(case, period, region, recording["environment"])
    with gateway.serve_gateway(exchanges) as server:
        description, findings = _read_in_process(server.url, request)
    checks_before = [finding[0] for finding in recording["symptoms"]]
    if recording["read"] and description:
        findings = _compare_values(recording["read"], description)
    elif not recording["read"] and [finding.check for finding in findings] == checks_before:
        findings = []  # it fails in the same way as when it was recorded
    if findings and exchanges.unanswered:
        first = exchanges.unanswered[0]
        request_text = f"{first.method} {first.url} {dict(first.headers) or ''}".rstrip()
        message = f"has no answer to {request_text}"
        findings = [Finding("recording", message, "record it again")]
    note = "" if recording["proven"] else "; not proven when recorded"
    return RecordingResult(
        folder.name,
        recording["date"],
        "replayed",
        _summarise_variables(description) + note,
        findings,
    )


def _compare_values(before: Json, now: Json) -> list[Finding]:
    """Find variables and coordinates whose values differ from those that were recorded."""
    findings = []
    for key in ("variables", "coordinates"):
        for name in before[key] | now[key]:
            old, new = before[key].get(name), now[key].get(name)
            if old != new:
                message = f"{name}: was {_summarise_array(old)}, is {_summarise_array(new)}"
                hint = "find the change of the reader that causes this"
                findings.append(Finding("values", message, hint))
    return findings


def _summarise_array(description: Json | None) -> str:
    """Return shape, units and digest of an array's description."""
    if description is None:
        return "not there"
    size = " x ".join(map(str, description["shape"]))
    text = f"{size} {description.get('units', '')} {description['sha256'][:12]}"
    return text.replace("  ", " ")


def _summarise_variables(description: Json) -> str:
    """Return the names and shapes of the variables that were read."""
    variables = description.get("variables", {})
    return ", ".join(f"{name} {tuple(array['shape'])}" for name, array in variables.items())


def _catalog_name(url: str, folder: Path) -> str:
    """Return how a recording names its catalog.

    A shipped catalog has its name, a file its path from the folder of recordings, others their URL.
    """
    if "://" in url:
        return url
    path = Path(url)
    is_shipped = path.parent == Path(intake_catalog.__file__).parents[2] / "catalogs"
    return path.stem if is_shipped else os.path.relpath(path, folder)


def _replay_environment(spec: Json) -> dict[str, str]:
    """Return the environment variables that a replay of an entry needs, without secrets."""
    current = {name: os.environ[name] for name in S3_VARIABLES if os.environ.get(name)}
    environment = {
        name: recording_exchanges.remove_secrets(value) for name, value in current.items()
    }
    for name in templates.environment_names(spec):
        value = recording_exchanges.remove_secrets(os.environ.get(name, ""))
        is_secret = SECRET_NAMES.search(name) or "://" not in value
        environment[name] = recording_exchanges.REMOVED if is_secret else value
    return environment


def _catalog_of_entry(entry: catalog_entries.CatalogEntry) -> Json:
    """Return a catalog of an entry and of the entries that it is composed of."""
    siblings = catalog_entries.read_entries(entry.catalog)
    references = [v for v in (entry.spec.get("args") or {}).values() if isinstance(v, str)]
    names = [entry.name, *(name for name in references if name in siblings)]
    return {"metadata": {"version": 1}, "sources": {name: siblings[name] for name in names}}


def _check_secrets(folder: Path) -> None:
    """Remove a recording that contains a secret in spite of the redaction.

    Raises:
      ConfigError: If there is one; names the file, not the secret.
    """
    secrets = recording_exchanges.known_secrets()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and any(secret.search(path.read_bytes()) for secret in secrets):
            shutil.rmtree(folder)
            problem = f"{path.name} contains a secret of this machine's environment or ~/.netrc"
            hint = "the recording was removed; record the entry without a login"
            raise ConfigError(str(folder), problem, remedy=hint)
