"""Recordings of real answers: kept small and without secrets, replayed offline to the same values.

Servers on this machine stand for the providers, one of each protocol; all of them are gone when
the recordings are replayed.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import socket
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import earthdata_server
import icechunk
import miniatures_insitu
import miniatures_raster
import miniatures_scan
import numpy as np
import pytest
import web
import xarray as xr
import yaml
from miniatures_forcing import to_zarr
from miniatures_smap import L3, Repository, Seen, item
from typer.testing import CliRunner

from pipeline import files
from pipeline.catalog import intake_catalog
from pipeline.cli import app
from pipeline.grid import ease

if TYPE_CHECKING:
    import servers


DAYS = np.arange("2020-06-01", "2020-06-10", dtype="datetime64[D]")
WINDOW = slice(4, 7)  # the days that are read: three, from the middle
LAT, LON = np.arange(42.0, 35.9, -0.25), np.arange(-101.0, -94.9, 0.25)
TOKEN, NAME, SIGNATURE = "planted-token-of-earthdata", "ada.lovelace", "planted5ignature"
SECRETS = (TOKEN, NAME, SIGNATURE)


@dataclass
class Recorded:
    """The folder of the recordings, what the command printed, its exit code, S3's keys."""

    folder: Path
    output: str
    code: int
    keys: tuple[str, ...]

    def of(self, entry: str) -> Path:
        """The folder of an entry's recording."""
        assert self.code == 0, self.output
        return self.folder / entry

    def told(self, entry: str) -> dict:
        return json.loads((self.of(entry) / "recording.json").read_text())

    def exchanges(self, entry: str) -> list[dict]:
        return json.loads((self.of(entry) / "exchanges.json").read_text())


def metadata(support: str, period: str = "2020-06-01..2020-06-09", **more) -> dict:
    said = ("license", "doi", "auth", "region", "native_units", "native_grid", "time_convention")
    return dict.fromkeys(said, "as made here") | {"support": support, "period": period} | more


def field(seed: int) -> xr.Dataset:
    values = 280 + 20 * np.random.default_rng(seed).random((len(DAYS), len(LAT), len(LON)))
    coords = {"time": DAYS.astype("datetime64[ns]"), "lat": LAT, "lon": LON}
    held = (("time", "lat", "lon"), values.astype("float32"), {"units": "K"})
    return xr.Dataset({"T": held}, coords)


TEMPERATURE = {"air_temperature": {"from": "T", "units": "K"}}
GRIDDED, ZARR = "pipeline.sources.gridded.GriddedSource", "pipeline.sources.gridzarr.GridZarrSource"


def over_http(folder: Path, site: web.Site) -> dict:
    """NetCDF-4, read in parts, by a signed URL, with keys in headers and cookies."""
    field(1).to_netcdf(folder / "t.nc", engine="h5netcdf")
    names = ("X-Amz-Signature", "subscription-key", "access_key", "pwd", "user", "jwt", "session")
    signed = f"{site.url}/t.nc?{'&'.join(f'{name}={SIGNATURE}' for name in names)}&part=1"
    headers = {"X-Api-Key": SIGNATURE, "Ocp-Apim-Subscription-Key": SIGNATURE}
    options = {"headers": headers, "cookies": {"sid": SIGNATURE}}
    args = {"urlpath": signed, "mapping": TEMPERATURE, "storage_options": options}
    return {"driver": GRIDDED, "args": args, "metadata": metadata("cell")}


def in_a_bucket(folder: Path, s3: servers.S3) -> dict:
    """Zarr v3 in a bucket that wants keys."""
    to_zarr(field(2).chunk({"time": 3}), folder / "t.zarr", 3)
    for path in (folder / "t.zarr").rglob("*"):
        if path.is_file():
            key = path.relative_to(folder).as_posix()
            files.write_bytes(s3.url("rec", key), path.read_bytes())
    args = {"urlpath": s3.url("rec", "t.zarr"), "mapping": TEMPERATURE}
    return {"driver": ZARR, "args": args, "metadata": metadata("cell")}


def tagged(handler) -> None:
    """End the headers of an answer as S3 does, which Icechunk relies on."""
    handler.send_header("ETag", '"0123456789abcdef"')
    handler.send_header("Last-Modified", "Mon, 01 Jun 2020 00:00:00 GMT")
    http.server.BaseHTTPRequestHandler.end_headers(handler)


def in_icechunk(folder: Path, site: web.Site) -> dict:
    """An Icechunk repository in a bucket that is open to all."""
    storage = icechunk.local_filesystem_storage(str(folder / "open" / "repo"))
    session = icechunk.Repository.create(storage).writable_session("main")
    field(3).to_zarr(session.store, zarr_format=3, consolidated=False)
    session.commit("first")
    options = {"anon": True, "client_kwargs": {"endpoint_url": site.url}}
    args = {"urlpath": "s3://open/repo", "mapping": TEMPERATURE, "icechunk": {"branch": "main"}}
    return {
        "driver": ZARR,
        "args": args | {"storage_options": options},
        "metadata": metadata("cell"),
    }


def granules(folder: Path, site: web.Site, nasa: earthdata_server.Earthdata) -> dict:
    """SMAP's files, found by a search; a token, and a redirection to where it must not go."""
    whole = ease.Window(0, 0, 406, 964, 1)
    row, col = np.abs(whole.cell_lat - 39).argmin(), np.abs(whole.cell_lon + 98).argmin()
    nasa.elsewhere = f"{site.url}/smap"
    items = []
    for day in DAYS.astype(str):
        one = L3(day, [Seen(int(row), int(col), 0.21, f"{day}T12:00:00.000Z")])
        size = one.write(folder / "smap").stat().st_size
        items.append(item(one.name, f"{nasa.url}/away", f"{day}T20:00:00Z", size))
    nasa.repository = Repository(items)
    mapping = {"soil_moisture": {"from": "soil_moisture", "units": "cm**3/cm**3", "to": "m3 m-3"}}
    args = {"collection": {"short_name": "SPL3SMP", "version": "009"}, "login": "earthdata"}
    return {
        "driver": "pipeline.sources.smap.SmapL3Source",
        "args": args | {"mapping": mapping, "repository": nasa.url},
        "metadata": metadata("footprint", auth="earthdata"),
    }


def service(site: web.Site) -> dict:
    """Stations of a REST service."""
    mini = miniatures_scan.Awdb()
    mini.add_site("2057:AL:SCAN", 34.9, -86.5, 1000.0, -6.0)
    mini.add("2057:AL:SCAN", "SMS:-2", DAYS, np.linspace(20, 28, len(DAYS)))
    args = {"urlpath": mini.serve(site), "network": "SCAN"}
    args["flag"] = {"from": "SMS:-2", "good": ["", "V", "N", "E"]}
    args["mapping"] = {"soil_moisture": {"from": "SMS:-2", "units": "pct", "to": "m3 m-3"}}
    return {
        "driver": "pipeline.sources.awdb.AwdbSource",
        "args": args,
        "metadata": metadata("site"),
    }


def listed(folder: Path, site: web.Site) -> dict:
    """Texts in folders that pages list."""
    name = "NM_Socorro_20_N"
    rows = miniatures_insitu.uscrn_year(name, 2020, lambda i: f"{0.1 + i / 1000:.3f}")
    miniatures_insitu.write_uscrn(folder / "products", {(name, 2020): rows})
    site.made.append((r"products/.*/$", miniatures_insitu.index(folder)))
    entry = intake_catalog.find_entry("insitu", "uscrn").spec
    args = {"urlpath": f"{site.url}/products/daily01", "mapping": entry["args"]["mapping"]}
    return {"driver": entry["driver"], "args": args, "metadata": metadata("site")}


def raster(folder: Path, site) -> dict:
    """A GeoTIFF that GDAL reads in parts."""
    values = np.random.default_rng(5).integers(50, 900, (256, 256)).astype("int16")
    path = folder / "sand.tif"
    miniatures_raster.write(path, values, "EPSG:4326", (-99.28, 40.28), 0.01, nodata=-1)
    args = {"urlpath": f"{site.url}/sand.tif"}
    args["mapping"] = {"sand": {"from": "1", "units": "g/kg", "to": "percent"}}
    return {
        "driver": "pipeline.sources.raster.RasterSource",
        "args": args,
        "metadata": metadata("cell", "constant"),
    }


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, s3) -> Recorded:
    """One entry of each protocol, recorded by the command; all servers but S3 are stopped then."""
    folder = tmp_path_factory.mktemp("recorded")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(web._Handler, "end_headers", tagged)
        patch.setenv("EARTHDATA_TOKEN", TOKEN)
        patch.setenv("EARTHDATA_USERNAME", NAME)
        site = stack.enter_context(web.serve(folder))
        nasa = stack.enter_context(earthdata_server.serve())
        other = stack.enter_context(miniatures_raster.served(folder))
        sources = {
            "http": over_http(folder, site),
            "bucket": in_a_bucket(folder, s3),
            "icechunk": in_icechunk(folder, site),
            "granules": granules(folder, site, nasa),
            "service": service(site),
            "listed": listed(folder, site),
            "raster": raster(folder, other),
        }
        local = dict(sources["http"], args={"urlpath": str(folder / "t.nc")})
        local["args"]["mapping"] = TEMPERATURE
        path = folder / "live.yaml"
        tree = {"metadata": {"version": 1}, "sources": sources | {"local": local}}
        path.write_text(yaml.safe_dump(tree))
        command = ["doctor", str(path), "--record", str(folder / "kept")]
        done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        assert {authorization for _, authorization in nasa.asked} <= {None, f"Bearer {TOKEN}"}
        keys = (s3.key, s3.secret)
    return Recorded(folder / "kept", done.output, done.exit_code, keys)


@pytest.fixture(scope="module")
def replayed(recorded) -> Recorded:
    """The recordings replayed by the command, where no connection but to this machine is made."""
    done = CliRunner().invoke(app, ["doctor", str(recorded.folder)], env={"COLUMNS": "200"})
    return Recorded(recorded.folder, done.output, done.exit_code, ())


ENTRIES = ("bucket", "granules", "http", "icechunk", "listed", "raster", "service")


def test_every_protocol_is_recorded(recorded):
    assert recorded.code == 0, recorded.output
    assert tuple(sorted(p.name for p in recorded.folder.iterdir())) == ENTRIES
    assert [entry for entry in ENTRIES if not recorded.told(entry)["proven"]] == []


def test_files_of_this_machine_prove_nothing(recorded):
    assert re.search(r"local .*not recorded.*no server was asked", recorded.output)
    assert not (recorded.folder / "local").exists()


def test_what_was_read_is_described(recorded):
    """The window is the middle of the box around 98 W, 39 N on three days."""
    told = recorded.told("http")
    rows, columns = np.abs(LAT - 39) <= 1, np.abs(LON + 98) <= 1
    values = field(1)["T"].values[WINDOW][:, rows][:, :, columns]
    found = told["read"]["variables"]["air_temperature"]
    assert found["shape"] == [3, rows.sum(), columns.sum()] == [3, 9, 9]
    assert found["sha256"] == files.sha256(values.tobytes())
    assert (found["units"], found["dtype"], found["finite"]) == ("K", "<f4", 243)
    assert told["period"] == ["2020-06-05", "2020-06-07"]
    assert told["date"] == str(datetime.now(UTC).date())
    assert told["entry"] == "http"
    assert told["soilweave"]


def test_recordings_are_small_and_say_how_small(recorded):
    for entry in ENTRIES:
        bodies = (recorded.of(entry) / "bodies").iterdir()
        assert sum(path.stat().st_size for path in bodies) < 3e6
        told = recorded.told(entry)
        assert told["requests"] == len(recorded.exchanges(entry)) > 0


def test_what_proves_an_entry_is_there(recorded):
    """A search and one granule a day; a listing and a file; parts of a file."""
    asked = [one["url"] for one in recorded.exchanges("granules")]
    assert sum("/search/granules" in url for url in asked) == 1
    assert {url.rpartition("_2020")[2][:4] for url in asked if url.endswith(".h5")} == {
        "0604",
        "0605",
        "0606",
        "0607",
        "0608",
    }
    assert any(one["url"].endswith("daily01/2020/") for one in recorded.exchanges("listed"))
    ranges = [one["asked"].get("range", "") for one in recorded.exchanges("raster")]
    assert any(ranges)


def test_no_secret_is_in_a_recording(recorded):
    secrets = [*SECRETS, *recorded.keys]
    found = [
        f"{path.name}: {secret}"
        for path in recorded.folder.rglob("*")
        if path.is_file()
        for secret in secrets
        if secret.encode() in path.read_bytes() or secret in str(path)
    ]
    assert found == []
    assert not [secret for secret in secrets if secret in recorded.output]
    (first, *_) = recorded.exchanges("http")
    assert first["url"].endswith("/t.nc?part=1")
    headers = {
        name for entry in ENTRIES for one in recorded.exchanges(entry) for name in one["headers"]
    }
    assert not headers & {"authorization", "set-cookie", "date", "server"}


def test_every_recording_gives_the_same_values_without_its_server(replayed):
    assert replayed.code == 0, replayed.output
    assert replayed.output.count("│ replayed") == len(ENTRIES)


def test_the_command_says_what_a_catalog_may_tell(replayed):
    today = datetime.now(UTC).date()
    said = [line for line in replayed.output.splitlines() if f"verified: {today}" in line]
    assert len(said) == len(ENTRIES)


def replay_of(folder: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", str(folder)], env={"COLUMNS": "200"})
    return done.exit_code, re.sub(r"[^\S\n]*\n?[│|][^\S\n]*", " ", done.output)


def test_other_values_are_told(recorded, tmp_path):
    """As a change of a reader would give them."""
    shutil.copytree(recorded.of("raster"), tmp_path / "raster")
    path = tmp_path / "raster" / "catalog.yaml"
    path.write_text(path.read_text().replace("g/kg", "percent"))
    code, output = replay_of(tmp_path)
    assert code == 1
    assert "sand: was" in output
    assert "verified:" not in output


def test_a_request_that_was_not_recorded_is_told(recorded, tmp_path):
    shutil.copytree(recorded.of("listed"), tmp_path / "listed")
    index = tmp_path / "listed" / "exchanges.json"
    kept = [one for one in json.loads(index.read_text()) if not one["url"].endswith(".txt")]
    index.write_text(json.dumps(kept))
    code, output = replay_of(tmp_path)
    assert code == 1
    assert "has no answer to GET" in output


def test_a_body_that_has_changed_is_told(recorded, tmp_path):
    """Also where the values that are read do not depend on it, or where it is gone."""
    for name, change in (("raster", True), ("http", False)):
        shutil.copytree(recorded.of(name), tmp_path / name)
        body = max((tmp_path / name / "bodies").iterdir(), key=lambda path: path.stat().st_size)
        if change:
            body.write_bytes(body.read_bytes() + b"\0")
        else:
            body.unlink()
    code, output = replay_of(tmp_path)
    assert code == 1
    assert output.count("missing, or changed since it was recorded") == 2
    assert "verified:" not in output


def test_an_entry_that_has_changed_is_not_verified(recorded, tmp_path):
    """The catalog lies beside the folder of recordings, which knows the way to it."""
    shutil.copy(recorded.folder.parent / "live.yaml", tmp_path)
    tmp_path = tmp_path / "kept"
    shutil.copytree(recorded.of("http"), tmp_path / "http")
    path = tmp_path / "http" / "recording.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"entry_sha256": "0" * 64}))
    code, output = replay_of(tmp_path)
    assert code == 0
    assert "the entry has changed since; record it again" in output
    assert "verified:" not in output


@pytest.mark.runs  # it takes some seconds
def test_an_answer_that_proves_nothing_is_kept_and_not_proven(tmp_path):
    """A provider's new unit: the recording shows it to who mends the entry, offline."""
    folder = tmp_path / "served"
    folder.mkdir()
    with web.serve(folder) as site:
        spec = over_http(folder, site)
        spec["args"]["mapping"] = {"air_temperature": {"from": "T", "units": "degC", "to": "K"}}
        path = tmp_path / "live.yaml"
        path.write_text(yaml.safe_dump({"sources": {"odd": spec}}))
        command = ["doctor", str(path), "--record", str(tmp_path / "kept")]
        done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 1
    told = json.loads((tmp_path / "kept" / "odd" / "recording.json").read_text())
    assert not told["proven"]
    code, output = replay_of(tmp_path / "kept")
    assert (code, "not proven" in output, "verified: 20" in output) == (0, True, False)


# What is shipped

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
SHIPPED = sorted(path.parent for path in RECORDINGS.glob("*/recording.json"))


def test_there_is_a_recording_to_replay():
    assert [path.name for path in SHIPPED] != []


@pytest.mark.parametrize("place", SHIPPED, ids=lambda p: p.name)
def test_a_shipped_recording_gives_the_values_that_it_gave(place, tmp_path):
    shutil.copytree(place, tmp_path / place.name)
    code, output = replay_of(tmp_path)
    assert code == 0, output


def test_no_entry_is_verified_without_a_recording():
    """`verified: DATE` is set only from one; `true` is left to files that are on this machine."""
    lacking = []
    for path in sorted((Path(intake_catalog.__file__).parents[2] / "catalogs").glob("*.yaml")):
        for name, spec in intake_catalog.read_entries(str(path)).items():
            said = (spec.get("metadata") or {}).get("verified", False)
            if said is True and "://" in str(spec.get("args")):
                lacking.append(f"{path.stem}:{name}: true, though it is read from a server")
            if not isinstance(said, date):
                continue
            found = [json.loads((place / "recording.json").read_text()) for place in SHIPPED]
            proofs = {(one["catalog"], one["entry"], one["date"]) for one in found if one["proven"]}
            if (path.stem, name, str(said)) not in proofs:
                lacking.append(f"{path.stem}:{name}: {said}")
    assert lacking == []


def test_the_workflow_records_on_a_schedule_with_secrets_of_its_own():
    path = RECORDINGS.parents[1] / ".github" / "workflows" / "record.yml"
    assert path.exists()
    tree = yaml.safe_load(path.read_text())
    assert "schedule" in tree[True]  # YAML's `on`
    text = path.read_text()
    assert "soilweave doctor" in text
    assert "--record" in text
    assert "${{ secrets.EARTHDATA_TOKEN }}" in text
    assert socket.gethostname() not in text
