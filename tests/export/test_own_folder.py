"""`export/` in an experiment's folder: what `verify` finds there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from made_maps import TARGET

from pipeline import cli, publish
from pipeline.errors import ConfigError
from pipeline.export import Options, export
from pipeline.progress import SilentProgress
from pipeline.storage import verify

MONTHS = Options("cog", every="month")


def found(made):
    """What is wrong in `export/`, by key."""
    result = verify.verify_workspace(made.workspace, SilentProgress())
    return {p.key: p.kind for p in result.problems if p.key.startswith("export/")}


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["soilweave", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def test_without_a_place_files_go_to_the_experiments_folder(own, monkeypatch, capsys):
    words = ["demo", "--format", "cog", "--every", "month"]
    workspace = ["--workspace", Path(own.root).parent]
    assert run(monkeypatch, "export", *words, *workspace) == 0
    told = capsys.readouterr()
    assert told.out == f"Files: {own.root}/export\n"
    assert "6 files written" in told.err
    assert run(monkeypatch, "export", own.store, *words[1:]) == 0
    assert "0 files written, 6 were there already" in capsys.readouterr().err
    alone = Path(own.root).parent / "alone.zarr"
    Path(own.store).rename(alone)
    assert run(monkeypatch, "export", alone, *words[1:]) == 2
    assert "--to: is needed: only the maps of an experiment" in capsys.readouterr().err


def test_verify_finds_what_is_damaged_missing_or_not_listed(own):
    export(own.root, own.workspace.url("export"), MONTHS, SilentProgress())
    assert found(own) == {}
    folder = Path(own.workspace.url("export"))
    one, two, *_ = sorted(folder.glob("*.tif"))
    data = bytearray(one.read_bytes())
    data[-1] ^= 1
    one.write_bytes(data)
    two.unlink()
    (folder / "mine.tif").write_bytes(b"x")
    assert found(own) == {
        f"export/{one.name}": "damaged",
        f"export/{two.name}": "missing",
        "export/mine.tif": "not listed",
    }
    # The damaged file has the size of the record, so it must be removed to be written again.
    one.unlink()
    export(own.root, str(folder), MONTHS, SilentProgress())
    assert found(own) == {"export/mine.tif": "not listed"}
    (folder / "export.json").write_text("{")
    assert {*found(own).values()} == {"not listed"}


def test_files_of_days_that_were_revised_are_stale_and_others_are_not(own):
    folder = own.workspace.url("export")
    export(own.root, folder, MONTHS, SilentProgress())
    days = [str(day)[:10] for day in own.opened().time.values]
    own.revise(TARGET, days.index("2017-02-10") // 32 * 32, lambda values: values + 1)
    stale = {key.rpartition("_")[2] for key, kind in found(own).items() if kind == "stale"}
    assert stale == {"2017-01.tif", "2017-02.tif"}
    export(own.root, folder, MONTHS, SilentProgress())
    assert found(own) == {}
    # A record of an earlier version does not say which maps a file was made from.
    record = Path(folder, "export.json")
    tree = json.loads(record.read_text())
    for about in tree["files"].values():
        del about["maps"]
    record.write_text(json.dumps(tree))
    assert {*found(own).values()} == {"stale"}


def test_an_experiments_folder_is_no_place_to_publish_to(own):
    with pytest.raises(ConfigError, match="is in the experiment's own folder"):
        publish.publish(own.workspace, own.workspace.url("export"), SilentProgress())
