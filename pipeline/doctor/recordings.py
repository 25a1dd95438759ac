"""Recordings of entries: what servers answered when a window was read, and the same read offline.

A folder for each entry: recording.json (what was read, when, by which version), catalog.yaml (the
entry), exchanges.json and bodies/ (requests and answers, without secrets). Each entry is read in a
process of its own, through a gateway in this one: nothing read before spares it a request.
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
# Beside those that the entry names: where S3 is.
PLACES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION")
CREDENTIALS = ("EARTHDATA_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
LOCAL = "nothing was asked of a server; files on this machine prove no live source"


class Row(NamedTuple):
    """An entry: its days, what came of it, and what is wrong."""

    label: str
    days: str
    done: str
    told: str
    symptoms: list[Symptom]


class Wanted(NamedTuple):
    """What is to be read: an entry, its days, a box; the environment in which it is replayed."""

    case: Case
    period: Period | None
    region: Region | None
    environment: dict[str, str] | None = None


def is_recording(folder: str) -> bool:
    """Whether a folder holds recordings."""
    return "://" not in folder and any(Path(folder).glob(f"*/{RECORD}"))


def record(to_do: Sequence[Case], folder: str, progress: Progress) -> list[Row]:
    """Read a window of every entry over HTTP and keep the answers, a folder for each entry.

    Args:
      to_do: the entries.
      folder: of the recordings, on this machine.
      progress: told of each entry.

    Raises:
      ConfigError: the folder is a URL.
    """
    if "://" in folder:
        raise ConfigError(f"--record {folder}", "is a URL", remedy="give a folder of this machine")
    files.check_writable(files.join(folder, RECORD))
    progress.start("record", len(to_do), "entries")
    rows = []
    for case in to_do:
        unfit = admission.unfit(case)
        if unfit and all(symptom.check == "environment" for symptom in unfit):
            unset = "; ".join(symptom.found for symptom in unfit)  # names a folder of this machine
            rows.append(Row(case.label, "", "not recorded", unset, []))
        elif unfit:
            rows.append(Row(case.label, "", "not recorded", "", unfit))
        else:
            name = case.label.replace("/", "_").replace(":", "_")
            rows.append(_recorded(case, Path(folder) / name))
        progress.advance()
    progress.finish(f"{sum(row.done == 'recorded' for row in rows)} entries recorded in {folder}")
    return rows


def replay(folder: str, progress: Progress) -> list[Row]:
    """Read every recorded entry again, from the recording alone, and compare the values."""
    places = sorted(path.parent for path in Path(folder).glob(f"*/{RECORD}"))
    progress.start("replay", len(places), "recordings")
    rows = []
    for place in places:
        rows.append(_replayed(place))
        progress.advance()
    progress.finish(f"{len(places)} recordings replayed")
    return rows


def verified(folder: str) -> list[str]:
    """What catalogs may say of the entries that recordings prove: `verified: DATE`."""
    made = []
    for path in sorted(Path(folder).glob(f"*/{RECORD}")):
        told = json.loads(path.read_text())
        name = told["catalog"]
        place = f"catalog {name}, entry {told['entry']}"
        is_file = "://" not in name and name.endswith((".yaml", ".yml"))
        try:
            url = str(Path(folder) / name) if is_file else name
            spec = catalog.find(url, told["entry"]).spec
        except (SoilweaveError, OSError):
            made.append(f"{place}: not found here")
            continue
        if not told["proven"]:
            made.append(f"{place}: not proven; keep `verified: false`")
        elif digest(spec) != told["entry_sha256"]:
            made.append(f"{place}: has changed since; record it again")
        else:
            made.append(f"{place}: verified: {told['date']}")
    return made


def digest(spec: Json) -> str:
    """Identifies how an entry is read; what its metadata tells does not count."""
    path = drivers.published_path(spec["driver"])  # recordings outlive the move of a driver
    return files.sha256_of([path, spec.get("args") or {}])


def _apart(gateway_url: str, wanted: Wanted) -> tuple[Json, list[Symptom]]:
    """What an entry gives in a process of its own: what was read, and what is wrong."""
    # Forked from a server that has imported everything and opened nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    environment = dict(os.environ)  # the server has that of its own start
    if wanted.environment is not None:
        for name in PLACES:
            environment.pop(name, None)
        environment |= dict.fromkeys(CREDENTIALS, redaction.REMOVED) | wanted.environment
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_read, gateway_url, wanted, environment).result()
        except BrokenProcessPool:
            found = "the process that read it was ended, for its memory perhaps"
            return {}, [Symptom("opening", found, "run it where there is more memory")]


def _read(
    gateway_url: str, wanted: Wanted, environment: dict[str, str]
) -> tuple[Json, list[Symptom]]:
    os.environ.clear()
    os.environ.update(environment)
    case = wanted.case
    assert isinstance(case.found, catalog.Found)
    with clients.through(gateway_url):
        try:
            given = catalog.parameters(case.experiment, case.found) if case.experiment else {}
            values, mapped = proof.read(case.found, given, wanted.period, wanted.region)
        except Exception as error:  # noqa: BLE001  # whatever an answer provokes is a finding
            return {}, of_error(error)
    return proof.described(values), proof.problems(values, mapped, case)


def _recorded(case: Case, place: Path) -> Row:
    """Record an entry; also where it cannot be read, which the recording then shows."""
    assert isinstance(case.found, catalog.Found)
    period, region = proof.window(case)
    with gateway.serve() as passed:
        read, symptoms = _apart(passed.url, Wanted(case, period, region))
    if passed.refused:
        remedy = "record it with a smaller --set domain, or not at all"
        symptoms = [Symptom("recording", passed.refused, remedy)]
    days = "" if period is None else f"{period[0]}..{period[1]}"
    if not passed.kept.made:
        return Row(case.label, days, "not recorded", LOCAL if not symptoms else "", symptoms)
    told = {
        "catalog": _named(case.found.catalog, place.parent),
        "entry": case.found.name,
        "entry_sha256": digest(case.found.spec),
        "date": str(datetime.now(UTC).date()),
        "soilweave": pipeline.__version__,
        "commit": store.git_commit(),
        "period": None if period is None else [str(day) for day in period],
        "region": region,
        "environment": _environment(case.found.spec),
        "requests": len(passed.kept.made),
        "bytes": passed.kept.size,
        "proven": not symptoms,
        "symptoms": [list(symptom) for symptom in symptoms],
        "read": read,
    }
    if (place / RECORD).exists():
        shutil.rmtree(place)
    passed.kept.save(place)
    entry = redaction.of_tree(_catalog(case.found))
    (place / CATALOG).write_text(yaml.safe_dump(entry, sort_keys=False))
    (place / RECORD).write_text(json.dumps(redaction.of_tree(told), indent=1))
    _check_secrets(place)
    size = f"{told['requests']} requests, {passed.kept.size / 1e6:.2f} MB"
    return Row(case.label, days, "recorded", f"{size}: {_names(read)}", symptoms)


def _replayed(place: Path) -> Row:
    """Read an entry from its recording, with no credentials and no server but the gateway."""
    told = json.loads((place / RECORD).read_text())
    period = told["period"] and tuple(date.fromisoformat(day) for day in told["period"])
    region = told["region"] and tuple(told["region"])
    case = Case(place.name, catalog.find(str(place / CATALOG), told["entry"]))
    try:
        exchanges = Exchanges.load(place)
    except DataError as error:
        found = "; ".join(error.problems)
        return Row(place.name, told["date"], "", "", [Symptom("recording", found, error.remedy)])
    with gateway.serve(exchanges) as passed:
        read, symptoms = _apart(passed.url, Wanted(case, period, region, told["environment"]))
    if told["read"] and read:
        symptoms = _differences(told["read"], read)
    elif not told["read"] and [s.check for s in symptoms] == [s[0] for s in told["symptoms"]]:
        symptoms = []  # it fails as it failed
    if symptoms and exchanges.lacking:
        lacking = exchanges.lacking[0]
        asked = f"{lacking.method} {lacking.url} {dict(lacking.asked) or ''}".rstrip()
        symptoms = [Symptom("recording", f"lacks {asked}", "record it again")]
    proven = "" if told["proven"] else "; not proven when recorded"
    return Row(place.name, told["date"], "replayed", f"{_names(read)}{proven}", symptoms)


def _differences(before: Json, now: Json) -> list[Symptom]:
    """Variables and coordinates that are read otherwise than they were."""
    made = []
    for key in ("variables", "coordinates"):
        for name in before[key] | now[key]:
            was, found = before[key].get(name), now[key].get(name)
            if was != found:
                shown = f"{name}: was {_short(was)}, is {_short(found)}"
                made.append(Symptom("values", shown, "which change of the reader is it of?"))
    return made


def _short(told: Json | None) -> str:
    if told is None:
        return "not there"
    size = " x ".join(map(str, told["shape"]))
    return f"{size} {told.get('units', '')} {told['sha256'][:12]}".replace("  ", " ")


def _names(read: Json) -> str:
    held = read.get("variables", {})
    return ", ".join(f"{name} {tuple(one['shape'])}" for name, one in held.items())


def _named(url: str, folder: Path) -> str:
    """A shipped catalog by its name, a file by its path from the folder of recordings, or a URL."""
    if "://" in url:
        return url
    path = Path(url)
    shipped = path.parent == Path(catalog.__file__).parents[1] / "catalogs"
    return path.stem if shipped else os.path.relpath(path, folder)


def _environment(spec: Json) -> dict[str, str]:
    """Values that the entry takes from the environment, as replaying needs them: no secrets."""
    given = {name: os.environ[name] for name in PLACES if os.environ.get(name)}
    made = {name: redaction.without(value) for name, value in given.items()}
    for name in catalog.ENVIRONMENT.findall(str(spec)):
        value = redaction.without(os.environ[name])
        made[name] = redaction.REMOVED if SECRET.search(name) or "://" not in value else value
    return made


def _catalog(found: catalog.Found) -> Json:
    """The entry, with those of its catalog that it is made of, as a catalog of its own."""
    beside = catalog.tree(found.catalog)
    named = [v for v in (found.spec.get("args") or {}).values() if isinstance(v, str)]
    kept = [found.name, *(name for name in named if name in beside)]
    return {"metadata": {"version": 1}, "sources": {name: beside[name] for name in kept}}


def _check_secrets(place: Path) -> None:
    """Remove a recording in which a secret is left after all.

    Raises:
      ConfigError: naming the file, not the secret.
    """
    known = redaction.known()
    for path in sorted(place.rglob("*")):
        if path.is_file() and any(secret.search(path.read_bytes()) for secret in known):
            shutil.rmtree(place)
            found = f"{path.name} held a secret of this machine's environment or ~/.netrc"
            raise ConfigError(str(place), found, remedy="removed again; record it without login")
