"""Files and servers that would take all time or memory: bounded, and one line says so."""

import contextlib
import http.server
import threading
import time
import zipfile

import h5py
import pytest
import web
from fsspec.implementations.http import HTTPFileSystem

from pipeline import files, safe_yaml
from pipeline.catalog import entries
from pipeline.errors import DataError, SoilweaveError, StoreError
from pipeline.experiment import load
from pipeline.sources import drivers
from pipeline.sources.ismn import archive
from pipeline.sources.raster.geotiff import format_url
from pipeline.sources.raster.mosaic import Tiles
from pipeline.sources.shared import access, http_errors
from pipeline.sources.shared.units import linear_conversion
from pipeline.sources.table.text import parse_csv

MEMBER = "Net/Site/Net_Net_Site_sm_0.050000_0.050000_Probe_20200101_20200102.stm"


# Clients with these limits; those of other tests have the limits that they were made with.
CLIENTS = {}


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers GET by a body without end, as fast or as slowly as its path says."""

    protocol_version = "HTTP/1.0"
    ended = threading.Event()

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        with contextlib.suppress(OSError):
            if "head" in self.path:
                self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                while not self.ended.wait(0.05):
                    self.wfile.write(b"X: y\r\n")
            self.send_response(206 if self.headers.get("Range") and "part" in self.path else 200)
            self.end_headers()
            while not self.ended.wait(0.05 if "slow" in self.path else 0):
                self.wfile.write(b"#" if "slow" in self.path else b"#" * 2**20)

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture
def endless(monkeypatch):
    """The URL of such a server, and limits that are soon reached."""
    monkeypatch.setattr(files, "MAX_HTTP_S", 1.0)
    monkeypatch.setattr(http_errors, "MAX_RESPONSE_BYTES", 5 * 2**20)
    monkeypatch.setattr(access, "_supports_ranges", {})
    monkeypatch.setattr(HTTPFileSystem, "_cache", CLIENTS)
    Slow.ended.clear()
    with web.running(Slow) as url:
        yield url
        Slow.ended.set()


def says(action, *parts):
    with pytest.raises(SoilweaveError) as caught:
        action()
    text = str(caught.value)
    assert any(part in text for part in parts), text
    assert "\n" not in text


LATE = "within 1 s"


def places(url):
    mapping = {"snowfall": {"from": "S", "units": "kg m-2 day-1"}}
    return drivers.driver_class("points.PointsSource")(url, "site", mapping)


def test_a_catalog_that_never_ends_or_trickles(endless):
    says(lambda: entries.read_entries(f"{endless}/fast.yaml"), "is larger than 1,048,576 bytes")
    says(lambda: entries.read_entries(f"{endless}/slow.yaml"), LATE)
    says(lambda: load.load_experiment(f"{endless}/slow.yaml"), LATE)
    says(lambda: load.load_experiment(f"{endless}/fast.yaml"), "is larger than")
    says(lambda: entries.read_entries(f"{endless}/head.yaml"), LATE, "cannot be read")


@pytest.mark.parametrize("path", ["slow.csv", "head.csv", "slow-part.nc"])
def test_data_that_trickle(endless, path):
    begin = time.monotonic()
    says(lambda: access.read_file(f"{endless}/{path}"), LATE, "does not answer")
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("path", ["fast.csv", "fast-part.csv"])
def test_data_that_never_end(endless, path):
    says(
        lambda: access.read_file(f"{endless}/{path}"),
        "larger than 5,242,880 bytes",
        LATE,
        "cannot be read",
    )
    with http_errors.plain_http_errors(endless):
        says(
            lambda: places(f"{endless}/{path}").to_dask(),
            "larger than 5,242,880 bytes",
            LATE,
            "cannot be read",
        )


def test_a_large_file_is_not_read_as_a_catalog(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a" * (safe_yaml.MAX_BYTES + 1))
    with pytest.raises(StoreError, match="larger than 1,048,576 bytes"):
        files.read_limited(str(path), safe_yaml.MAX_BYTES)
    assert len(files.read_limited(str(path), safe_yaml.MAX_BYTES + 1)) == safe_yaml.MAX_BYTES + 1


def bomb(path, size):
    """Write a zip of a member of zeros; return how large the zip is."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open(MEMBER, "w", force_zip64=True) as member,
    ):
        for _ in range(size // 2**20):
            member.write(b"0" * 2**20)
    return path.stat().st_size


def test_a_zip_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    assert bomb(path, 300 * 2**20) < 2**20
    for action in (archive.list_members, lambda p: archive.find_sensors(p, [], (0.0, 1.0))):
        with pytest.raises(DataError, match="more than 200 times as many") as caught:
            action(str(path))
        assert "\n" not in str(caught.value)


def test_a_member_is_not_unpacked_beyond_its_limit(tmp_path, monkeypatch):
    path = tmp_path / "large.zip"
    bomb(path, 3 * 2**20)
    monkeypatch.setattr(archive, "MAX_EXPANSION", 10_000)
    assert [*archive.list_members(str(path))] == [MEMBER]
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 2**20)
    with pytest.raises(DataError, match="unpacks to 3,145,728 bytes; at most 1,048,576"):
        archive.list_members(str(path))
    with pytest.raises(DataError, match="is larger than 1,048,576 bytes"):
        archive.read_hours(str(path), MEMBER)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('# c\nid,value\na,1\n"b,2\nc,3\n', "opened in line 4 is not closed"),
        ('"id,value\na,1\n', "opened in line 1 is not closed"),
        ('id,value\n\n\na,"' + "x\n" * 1000, "opened in line 4 is not closed"),
        ("," * 2**20 + "\na\n", "more than 100,000 characters"),
        ("a" * 2**20 + ",b\n1,2\n", "more than 100,000 characters"),
    ],
)
def test_a_broken_csv_is_one_line(text, problem):
    frame, problems = parse_csv(text.encode())
    assert frame.empty
    assert len(problems) == 1
    assert problem in problems[0]


def test_a_csv_with_a_cell_of_any_length_is_read(tmp_path):
    frame, problems = parse_csv(f"id,note\na,{'x' * 200_000}\nb,{'y,' * 100_000}\n".encode())
    assert [*frame.id] == ["a"]
    assert problems == ["more columns than the 2 of the header: line 3"]


@pytest.mark.parametrize("units", ["9**9**9**9 m", "m**9**9**9", "((9**99)**99)**99 m", "m**9999"])
def test_units_that_are_never_computed(units):
    for one, other in ((units, "m"), ("m", units)):
        with pytest.raises(DataError, match="powers of powers"):
            linear_conversion(one, other)


@pytest.mark.parametrize(
    "field", ["{lat:999999999d}", "{lat.__class__}", "{other}", "{lat!r:>9999}"]
)
def test_fields_of_tiles_are_plain(field):
    tiles = Tiles(3, (39.0, -108.0))
    assert format_url("a{ns}{lat:02d}{ew}{lon:03d}", None, (39, -108), tiles) == "aN39W108"
    with pytest.raises(DataError, match="at most two digits"):
        format_url(f"a{field}", None, (39, -108), tiles)


@pytest.mark.parametrize(("length", "chunk"), [(10**12, 1024), (50_000_000, 1)])
def test_a_small_file_that_declares_giant_arrays(tmp_path, length, chunk):
    path = tmp_path / "giant.nc"
    with h5py.File(path, "w") as file:
        time = file.create_dataset("time", (length,), "i4", maxshape=(None,), chunks=(chunk,))
        time.make_scale("time")
    assert path.stat().st_size < 2**16
    with pytest.raises(DataError, match="at most 100,000,000 along a dimension"):
        places(str(path)).to_dask()
    with web.serve(tmp_path) as site, pytest.raises(DataError, match="2,000,000 chunks"):
        places(f"{site.url}/giant.nc").to_dask()
