"""What all verbs have in common, `ls`, `init`, and remedies that name the command to type."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.main import get_command

from pipeline import __version__, cli, progress
from pipeline.cli import manners, tables
from pipeline.experiment import load
from pipeline.progress import SilentProgress, waiting

ROOT = Path(__file__).resolve().parents[2]
REGION = ["--bbox=-104,39,-97,41", "--period", "2016-01-01..2019-12-31"]


def test_the_version_is_told(soilweave):
    assert soilweave("--version") == (0, f"soilweave {__version__}\n", "")


def test_verbs_stand_in_the_order_of_the_work(soilweave):
    verbs = get_command(cli.app).commands
    assert {*verbs} <= {*manners.ORDER}
    listed = re.findall(r"^│ (\w+) ", soilweave("--help")[1], re.MULTILINE)
    assert listed == [verb for verb in manners.ORDER if verb in verbs]


@pytest.mark.parametrize("verb", sorted({*get_command(cli.app).commands}))
def test_every_verb_can_be_quiet_and_give_json(soilweave, verb):
    told = soilweave(verb, "--help")[1]
    assert "--quiet" in told
    assert ("--json" in told) == (verb not in manners.WITHOUT_JSON)


def test_json_is_printed_or_written_and_quiet_says_nothing(soilweave, tmp_path):
    code, out, err = soilweave("ls", "--workspace", tmp_path, "--json", "-")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["in_workspace"] == {}
    assert {*found["experiments"]} == {*load.list_presets("experiments")}
    file = tmp_path / "ls.json"
    assert soilweave("ls", "--workspace", tmp_path, "--json", file, "--quiet") == (0, "", "")
    assert json.loads(file.read_text()) == found
    # Options of one command do not hold for the next, and errors are told.
    assert soilweave("ls", "--workspace", tmp_path)[1].startswith("experiments\n")
    code, out, err = soilweave("ls", "scam", "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, _, err = soilweave("ls", "--json", tmp_path / "ls.json" / "no.json")
    assert (code, "cannot be written" in err) == (2, True)


def test_doctor_and_plan_give_their_tables_as_json(soilweave, tmp_path):
    (tmp_path / "mine.csv").write_text(
        "site,lat,lon,depth_m,time,vwc_m3m3\nA,41.2,-105.5,0.05,x,1\n"
    )
    code, out, _ = soilweave("doctor", tmp_path / "mine.csv", "--json", "-")
    found = json.loads(out)
    assert (code, found["healthy"]) == (1, False)
    assert any(line.startswith("problem: ") for line in found["lines"])
    from rich.table import Table

    table = Table(title="[bold]Sizes[/bold]")
    table.add_column("what")
    table.add_column("MB")
    table.add_row("cube", "[red]3[/red]\n4")
    assert tables.as_json(["[bold]a[/bold] line", table]) == {
        "lines": ["a line"],
        "tables": [{"title": "Sizes", "rows": [{"what": "cube", "MB": "3 4"}]}],
    }


def test_ls_shows_the_state_of_the_experiments_of_a_workspace(soilweave, world, tmp_path):
    folder = Path(world.workspace.root).parent
    code, out, _ = soilweave("ls", "--workspace", folder, "--json", "-")
    state = json.loads(out)["in_workspace"]["snow"]
    last = world.experiment.period[1]
    assert (code, state) == (0, f"evaluated, maps up to {last}")
    for name, records in (("begun", ["cube.zarr/begun.json"]), ("fresh", [])):
        store = tmp_path / name
        for record in ("experiment.yaml", *records):
            (store / record).parent.mkdir(parents=True, exist_ok=True)
            (store / record).write_text(json.dumps({"inputs_sha256": "0", "inputs": {}}))
    (tmp_path / "no experiment").mkdir()
    out = soilweave("ls", "--workspace", tmp_path)[1]
    assert re.findall(r"^  (begun|fresh) +(.*)", out, re.MULTILINE) == [
        ("begun", "nothing complete; cube begun"),
        ("fresh", "nothing complete"),
    ]
    # By the name of its folder, although no preset has it.
    code, out, _ = soilweave("ls", "snow", "--workspace", folder)
    assert (code, out.count("complete, ")) == (0, 6)


def test_init_writes_a_file_that_says_what_every_setting_is(soilweave, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = soilweave("init", "mine.yaml", *REGION, "--probes", "my.yaml:mine")
    assert code == 0
    assert "run it: soilweave run mine.yaml" in out
    text = (tmp_path / "mine.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=soilweave.schema.json\n")
    settings = [i for i, line in enumerate(text.splitlines()) if re.match(r" *[a-z_]+:", line)]
    lines = text.splitlines()
    assert all(lines[i - 1].lstrip().startswith("#") for i in settings)
    experiment = load.load_experiment("mine.yaml")
    assert experiment.name == "mine"
    assert experiment.domain.east_degrees == -97
    assert experiment.period == experiment.test_period
    assert str(experiment.period[1]) == "2019-12-31"
    assert experiment.sources.insitu[-1] == "my.yaml:mine"
    schema = json.loads((tmp_path / "soilweave.schema.json").read_text())
    jsonschema.validate(as_json(yaml.safe_load(text)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(as_json(yaml.safe_load(text)) | {"perod": []}, schema)
    code, _, err = soilweave("init", "mine.yaml", *REGION)
    assert (code, "exists already; give another name" in err) == (2, True)


def as_json(tree):
    return json.loads(json.dumps(tree, default=datetime.date.isoformat))


@pytest.mark.parametrize("preset", load.list_presets("experiments"))
def test_presets_are_valid_by_the_schema_for_editors(preset):
    jsonschema.validate(as_json(load.read_settings("experiments", preset)), load.file_schema())


REFUSED = [
    (
        ["init", "mine.yaml"],
        "--bbox, --period: not given; such as: soilweave init mine.yaml --bbox=",
    ),
    (["init", "mine.txt", *REGION], "expected a file NAME.yaml"),
    (
        ["init", "m.yaml", "--bbox=1,2,3", *REGION[1:]],
        "--bbox 1,2,3: expected west,south,east,north",
    ),
    (
        ["init", "m.yaml", REGION[0], "--period", "2016..2017"],
        "--period 2016..2017: expected first",
    ),
    (["init", "m.yaml", *REGION, "--like", "scam"], "did you mean 'scan'"),
    (["plan", "scan", "--set", "period=2016"], "such as --set 'period=[2016-01-01, 2016-12-31]'"),
    (
        ["doctor", "no.csv"],
        "no.csv: not found; give a CSV file of probes: soilweave doctor FILE.csv",
    ),
    (
        ["score", "scan", "--sites", "no.nc"],
        "no.nc: not found; give your probes: soilweave score scan",
    ),
    (["evaluate", "scan"], "make it with: soilweave prepare scan"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_remedies_name_what_to_type(soilweave, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = soilweave(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert [*tmp_path.iterdir()] == []


def test_intake_alone_says_nothing_of_shells():
    code = 'import intake; intake.open_catalog("catalogs/osse.yaml")["forcing"](planet="/nowhere")'
    command = [sys.executable, "-W", "default::UserWarning", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert "Shell command" not in done.stderr


def test_long_waits_say_what_is_waited_for(monkeypatch):
    said = []

    class Said(SilentProgress):
        def note(self, text):
            said.append(text)

    with waiting(Said(), "nothing"):
        pass
    monkeypatch.setattr(progress, "PATIENCE_S", 0.01)
    with waiting(Said(), "the sources to open"):
        end = time.monotonic() + 60
        while not said and time.monotonic() < end:
            time.sleep(0.01)
    assert said == ["waiting for the sources to open"]
