"""What is written, what is kept, what is written anew, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from made_maps import TARGET, Said

from pipeline import cli, files
from pipeline.errors import SoilweaveError, StoreError
from pipeline.export import Options, export, stage
from pipeline.storage import zarr_arrays

ROOT = Path(__file__).resolve().parents[2]
DAYS = Options("cog", period="2017-01-01..2017-01-03")

KILLED = """
import os, signal, sys
from pipeline.export import Options, export, stage
from pipeline.progress import SilentProgress
stage.RECORD_EVERY_S = 0.0
class Progress(SilentProgress):
    days = 0
    def advance(self, units=1):
        self.days += units
        if self.days == 2:
            os.kill(os.getpid(), signal.SIGKILL)
export(sys.argv[1], sys.argv[2], Options("cog", period="2017-01-01..2017-01-03"), Progress())
"""


def mtimes(folder):
    return {p.name: p.stat().st_mtime_ns for p in Path(folder).iterdir() if p.suffix != ".json"}


def changed(before, folder):
    return sorted(name for name, time in mtimes(folder).items() if before.get(name) != time)


def test_nothing_is_written_twice_and_every_file_is_recorded(made, tmp_path, said):
    to = tmp_path / "out"
    export(made.root, str(to), DAYS, said)
    assert said.line == f"6 files written: {to}"
    assert (said.days, said.total) == (3, 3)
    record = json.loads((to / "export.json").read_text())["files"]
    assert sorted(record) == sorted(mtimes(to))
    for name, about in record.items():
        data = (to / name).read_bytes()
        assert (about["size"], about["sha256"]) == (len(data), files.sha256(data))
        assert name.endswith(f"_{about['first']}.tif")
        assert (about["experiment"], about["arm"], about["format"]) == ("demo", "insitu", "cog")
    before = mtimes(to)
    export(made.root, str(to), DAYS, said)
    assert said.line == f"0 files written, 6 were there already: {to}"
    assert changed(before, to) == []
    # Another period adds its days; another option writes anew.
    export(made.root, str(to), Options("cog", period="2017-01-02..2017-01-05"), said)
    assert said.line.startswith("4 files written, 4 were there already")
    export(
        made.root, str(to), Options("cog", period="2017-01-02..2017-01-02", crs="EPSG:4326"), said
    )
    assert said.line.startswith("2 files written: ")


def test_a_killed_export_goes_on(made, tmp_path, said):
    to = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, made.root, str(to)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, timeout=300, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert len(mtimes(to)) == 2
    part = to / f"demo_insitu_{TARGET}_2017-01-02.tif.part-{'0' * 32}"
    part.write_text("half")
    (to / "mine.part-1.rar").write_text("of the user")
    before = mtimes(to)
    export(made.root, str(to), DAYS, said)
    assert said.line.startswith("4 files written, 2 were there already")
    assert len(changed(before, to)) == 4
    assert not part.exists()
    assert (to / "mine.part-1.rar").exists()
    assert not (to / "lease.json").exists()
    whole = tmp_path / "whole"
    export(made.root, str(whole), DAYS, said)
    for name in mtimes(whole):
        assert (to / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("kind", ["interrupted", "fails"])
def test_what_was_written_before_the_end_is_recorded(made, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(stage, "RECORD_EVERY_S", 1000.0)
    error = KeyboardInterrupt() if kind == "interrupted" else StoreError("here", "is broken")

    def stop(days):
        if days == 2:
            raise error

    with pytest.raises(type(error)):
        export(made.root, str(tmp_path), DAYS, Said(then=stop))
    said = Said()
    export(made.root, str(tmp_path), DAYS, said)
    assert said.line.startswith("4 files written, 2 were there already")


def test_one_day_is_a_period_and_one_file_is_not_files(made, tmp_path, said):
    export(made.root, str(tmp_path), Options("cog", period="2017-01-31"), said)
    names = [f"demo_insitu_{TARGET}{flag}_2017-01-31.tif" for flag in ("", "_quality_flag")]
    assert sorted(mtimes(tmp_path)) == names
    export(made.root, str(tmp_path), Options("netcdf", period="2017-01-31"), said)
    assert said.line.startswith("1 file written: ")
    export(made.root, str(tmp_path), Options("netcdf", period="2017-01-31"), said)
    assert said.line.startswith("0 files written, 1 was there already: ")


def test_files_of_revised_days_are_written_anew(own, tmp_path, said):
    to = tmp_path / "out"
    options = Options("cog", every="month")
    export(own.root, str(to), options, said)
    before = mtimes(to)
    opened = zarr_arrays.open_group(own.store, "")
    length = opened[TARGET].encoding["shards"][0]
    days = [str(day)[:10] for day in opened.time.values]
    first = days.index("2017-02-10") // length * length
    own.revise(TARGET, first, lambda values: values + 1)
    export(own.root, str(to), options, said)
    assert said.line.startswith("4 files written, 2 were there already")
    again = {name.rpartition("_")[2] for name in changed(before, to)}
    assert again == {"2017-01.tif", "2017-02.tif"}
    # What `update` always changes are attributes that say how far the maps go.
    before = mtimes(to)
    attrs = {
        "time_coverage_end": "2017-02-10",
        "period": ["2016-12-20", "2017-02-10"],
        "history": "x",
    }
    zarr_arrays.extend_group(own.store, [], {"": attrs})
    zarr_arrays.consolidate(own.store)
    own.maps.amend([])
    export(own.root, str(to), options, said)
    assert changed(before, to) == []


def test_a_file_that_is_cut_or_gone_is_written_again(made, tmp_path, said):
    export(made.root, str(tmp_path), DAYS, said)
    names = sorted(mtimes(tmp_path))
    (tmp_path / names[0]).write_bytes(b"cut")
    (tmp_path / names[1]).unlink()
    export(made.root, str(tmp_path), DAYS, said)
    assert said.line.startswith("4 files written, 2 were there already")  # a day has two
    (tmp_path / "export.json").write_text("{")
    export(made.root, str(tmp_path), DAYS, said)
    assert said.line.startswith("6 files written")


def test_a_store_of_maps_alone_can_be_exported(own, tmp_path, said):
    """Its objects are known from a listing: a changed one is noticed."""
    os.rename(own.store, tmp_path / "alone.zarr")
    url, to = str(tmp_path / "alone.zarr"), tmp_path / "out"
    export(url, str(to), DAYS, said)
    export(url, str(to), DAYS, said)
    assert said.line.startswith("0 files written, 6")
    for shard in (tmp_path / "alone.zarr" / TARGET / "c").rglob("*"):
        os.utime(shard, (1, 1))
    export(url, str(to), DAYS, said)
    assert said.line.startswith("6 files written")


def test_the_url_of_maps_in_a_workspace_is_that_of_their_arm(made, tmp_path, said):
    export(made.root, str(tmp_path), DAYS, said)
    export(made.store, str(tmp_path), DAYS, said)
    assert said.line.startswith("0 files written, 6")


REFUSALS = [
    (Options("tiff"), "--format tiff: expected cog, netcdf, csv"),
    (Options("cog", every="week"), "--every week: expected day, month"),
    (Options("cog", crs="EPSG:5070"), "--crs EPSG:5070: expected EPSG:6933, EPSG:4326"),
    (Options("netcdf", crs="EPSG:4326"), "--crs: does not apply to --format netcdf"),
    (Options("cog", places="a.csv"), "--places: does not apply to --format cog"),
    (Options("csv"), "--format csv: needs places; give --places"),
    (Options("csv", places="/nowhere.csv"), "/nowhere.csv: not found; correct the path or URL"),
    (Options("cog", "satellite"), "arm 'satellite': "),
    (Options("cog", period="2016"), "--period 2016: expected FIRST..LAST, such as"),
    (Options("cog", period=" "), "or one day, such as 2018-01-01"),
    (Options("cog", period="2016..2017"), "--period 2016..2017: expected FIRST..LAST"),
    (Options("cog", period="2016-12-01.."), "the maps have the days 2016-12-20..2017-02-10"),
    (Options("cog", period="2017-01-02..2017-01-01"), "give days of theirs, in order"),
    (Options("cog", period="2017-01-01..2017-02-11"), "the maps have the days 2016-12-20"),
]


@pytest.mark.parametrize(("options", "says"), REFUSALS, ids=[says for _, says in REFUSALS])
def test_options_that_do_not_fit_are_told_in_one_line(made, tmp_path, said, options, says):
    with pytest.raises(SoilweaveError) as caught:
        export(made.root, str(tmp_path / "out"), options, said)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_maps_that_are_not_there_are_told(own, tmp_path, said):
    def refused(source, says, arm=None):
        with pytest.raises(StoreError if arm is None else SoilweaveError) as caught:
            export(source, str(tmp_path / "out"), Options("netcdf", arm), said)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(own.store, "has the maps of another arm", "multiscale")
    refused(str(tmp_path / "nothing"), "not found, so nothing was run here")
    refused(str(tmp_path / "no.zarr"), "there are no maps here")
    os.remove(own.workspace.url("maps", "manifest.json"))
    refused(own.root, "there are no complete maps here; make them with: soilweave predict")


@pytest.mark.parametrize("format_", ["cog", "netcdf", "csv"])
def test_a_full_disk_leaves_no_part(made, tmp_path, said, format_):
    points = tmp_path / "points.csv"
    points.write_text(
        "lat,lon\n" + f"{made.opened().lat.values[0, 0]},{made.opened().lon.values[0, 0]}\n"
    )
    options = Options(format_, places=str(points) if format_ == "csv" else None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreError) as caught:
            export(made.root, str(tmp_path / "out"), options, said)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written: " in str(caught.value)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert "--to" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [*(tmp_path / "out").iterdir()] == []


def test_a_place_that_cannot_be_written_is_named(made, tmp_path, said):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written: Not a directory") as caught:
        export(made.root, str(tmp_path / "file" / "out"), DAYS, said)
    assert "another place with --to" in str(caught.value)
    assert "--workspace" not in str(caught.value)


def test_without_rasterio_the_extra_is_named(made, tmp_path, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(SoilweaveError) as caught:
        export(made.root, str(tmp_path / "out"), DAYS, said)
    assert "--format cog: needs the package rasterio, which is not installed" in str(caught.value)
    assert str(caught.value).endswith("pip install 'soilweave[export]'")


def test_the_verb(made, tmp_path, monkeypatch, capsys):
    place = ["--workspace", str(Path(made.root).parent), "--to", str(tmp_path / "out")]
    period = ["--period", "2017-02-10.."]
    monkeypatch.setattr(
        sys, "argv", ["soilweave", "export", "demo", "--format", "cog", *period, *place]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    told = capsys.readouterr()
    assert told.out == f"Files: {tmp_path / 'out'}\n"
    assert told.err == f"export: 2 files written: {tmp_path / 'out'}\n"
