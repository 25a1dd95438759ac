"""Experiments compared: the same sites and days, each with the first; what differs is told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline import files
from pipeline.cli import app
from pipeline.errors import DataError, SoilweaveError
from pipeline.evaluate import compare
from pipeline.evaluate.report import comparison
from pipeline.storage import tables
from pipeline.storage.artefacts import Workspace

LEAST = 30  # days of a site that is scored, in the small world


def copied(of, folder: Path, **changes) -> Workspace:
    """What a comparison reads of an experiment that was run, with some settings changed."""
    source = Path(of.workspace.root)
    (folder / "models").mkdir(parents=True)
    for name in ("sites.parquet", "folds.parquet", "folds.manifest.json", "models/manifest.json"):
        shutil.copyfile(source / name, folder / name)
    tree = yaml.safe_load((source / "experiment.yaml").read_text()) | changes
    (folder / "experiment.yaml").write_text(yaml.safe_dump(tree))
    return Workspace(str(folder))


def edited(workspace: Workspace, edit) -> Workspace:
    url = workspace.url("sites.parquet")
    tables.write_table(url, edit(tables.read_table(url)))
    return workspace


def by_site(of, arm: str, sites=None, first=None, last=None) -> dict[str, tuple]:
    """(prediction, observation) of every site on its observed days, straight from the table."""
    table = tables.read_table(of.workspace.url("sites.parquet"))
    table = table[(table.arm == arm) & table.observation.notna()]
    if first is not None:
        table = table[(table.time >= first) & (table.time <= last)]
    return {
        site: (rows.prediction.to_numpy(float), rows.observation.to_numpy(float))
        for site, rows in table.groupby("site")
        if sites is None or site in sites
    }


def rmse(pair) -> float:
    return float(np.sqrt(np.mean((pair[0] - pair[1]) ** 2)))


def assert_judged(made, world, variant, found) -> None:
    """Medians and differences are those of the sites' own scores."""
    first, other = (
        {site: rmse(pair) for site, pair in by_site(of, "insitu", **found).items()}
        for of in (world, variant)
    )
    told = made["arms"]["insitu"]
    for name, scores in (("snow", first), ("variant", other)):
        median = told["experiments"][name]["median"]["rmse"]
        assert median == pytest.approx(np.median([*scores.values()]), abs=1e-6)
    differences = [other[site] - first[site] for site in first]
    said = told["minus_first"]["variant"]["rmse"]
    assert said["median_difference"] == pytest.approx(np.median(differences), abs=1e-6)
    assert said["ci95"][0] <= said["median_difference"] <= said["ci95"][1]
    assert said["n_sites"] == len(differences) == made["n_sites"]


def test_each_is_judged_against_the_first_on_the_same_sites_and_days(world, variant):
    made = compare.compare_experiments([world.workspace, variant.workspace])
    assert_judged(made, world, variant, {})
    assert (made["first"], list(made["arms"])) == ("snow", ["insitu"])
    changed = made["experiments"]["variant"]["changed"]
    assert changed == {"arms": ["insitu"], "train.updates": 20}
    # Alone, the first is judged as evaluate judged it; and baselines are its own.
    summary = world.summary
    alone = made["arms"]["insitu"]["experiments"]["snow"]
    assert alone["median"] == pytest.approx(summary["arms"]["insitu"]["median"], abs=1e-6)
    for name in ("ridge", "footprint"):
        assert made["baselines"][name]["ci95"] == summary["baselines"][name]["ci95"]


def test_the_other_way_round_differences_change_their_sign(world, variant):
    there, back = (
        compare.compare_experiments(pair)["arms"]["insitu"]["minus_first"]
        for pair in (
            [world.workspace, variant.workspace],
            [variant.workspace, world.workspace],
        )
    )
    for metric, said in there["variant"].items():
        turned = back["snow"][metric]
        assert said["median_difference"] == -turned["median_difference"]
        assert said["ci95"] == [-turned["ci95"][1], -turned["ci95"][0]]


def test_only_sites_and_days_of_all_are_judged_and_counted(world, variant, tmp_path):
    period = ["2019-12-10", "2020-03-31"]
    fewer = copied(variant, tmp_path / "variant", test_period=period)
    kept = [f"snow-{i:02d}" for i in range(5, 24)]
    edited(fewer, lambda table: table[table.site.isin(kept)])
    made = compare.compare_experiments([world.workspace, fewer])
    found = {"sites": kept, "first": period[0], "last": period[1]}
    assert_judged(made, world, variant, found)
    n = sum(len(pair[0]) for pair in by_site(world, "insitu", **found).values())
    assert (made["n_sites"], made["n_site_days"]) == (19, n)
    assert made["test_period"] == period
    assert made["experiments"]["snow"]["n_sites"] == 24
    assert made["experiments"]["variant"]["n_site_days"] == n


def test_observations_that_differ_are_refused(world, variant, tmp_path):
    other = edited(
        copied(variant, tmp_path / "other"),
        lambda table: table.assign(observation=table.observation + 0.01),
    )
    with pytest.raises(
        DataError, match=r"observations of other differ from those of snow on \d+ of \d+"
    ):
        compare.compare_experiments([world.workspace, other])


def test_nothing_in_common_is_an_error(world, variant, tmp_path):
    with pytest.raises(DataError, match=r"no arm in common: .*; satellite has satellite"):
        compare.compare_experiments(
            [variant.workspace, _only_satellite(world, tmp_path / "satellite")]
        )
    moved = edited(
        copied(variant, tmp_path / "moved"), lambda table: table.assign(site="x" + table.site)
    )
    folds = tables.read_table(moved.url("folds.parquet"))
    tables.write_table(moved.url("folds.parquet"), folds.assign(site="x" + folds.site))
    with pytest.raises(DataError, match="0 sites and 160 days of test_period in common"):
        compare.compare_experiments([world.workspace, moved])
    short = copied(variant, tmp_path / "short", test_period=["2020-01-01", "2020-01-20"])
    with pytest.raises(DataError, match=f"no site has {LEAST} days"):
        compare.compare_experiments([world.workspace, short])


def _only_satellite(world, folder) -> Workspace:
    """The small world as if it had trained that arm alone."""
    made = copied(world, folder, arms=["satellite"])
    manifest = files.read_json(made.url("models", "manifest.json"))
    manifest["inputs"]["arms"] = ["satellite"]
    files.write_json(made.url("models", "manifest.json"), manifest)
    return edited(made, lambda table: table[table.arm == "satellite"])


def test_other_folds_and_sites_that_were_trained_on_are_told(world, variant, tmp_path):
    seen = edited(copied(variant, tmp_path / "seen"), lambda table: table.assign(status="trained"))
    manifest = files.read_json(seen.url("folds.manifest.json"))
    files.write_json(seen.url("folds.manifest.json"), manifest | {"digest": "0" * 64})
    notes = compare.compare_experiments([world.workspace, seen])["notes"]
    assert "seen assigns sites to other folds than snow" in notes
    assert "sites of arm insitu are trained in seen, out_of_fold in snow" in notes


def test_the_verb_shows_a_table_and_writes_numbers_and_a_picture(world, variant, tmp_path):
    folder = str(Path(world.workspace.root).parent)
    numbers, picture = tmp_path / "made.json", tmp_path / "made.png"
    command = ["evaluate", str(world.path), "variant", "--workspace", folder]
    command += ["--json", str(numbers), "--figure", str(picture)]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    made = json.loads(numbers.read_text())
    assert made == json.loads(
        json.dumps(compare.compare_experiments([world.workspace, variant.workspace]))
    )
    assert comparison.draw_comparison(made, "svg").startswith(b"<?xml")
    difference = made["arms"]["insitu"]["minus_first"]["variant"]["rmse"]["median_difference"]
    assert f"{difference:+.4f}".replace("0.", ".", 1) in ran.output
    assert "train.updates=20" in " ".join(ran.output.split())
    assert f"{made['n_site_days']:,}" in ran.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["snow", "variant", "snow"], "named twice: snow"),
        (["snow", "variant", "--figure", "made.pdf"], r"expected FILE.png or FILE.svg"),
        (["snow", "variant", "--set", "n_seeds=2"], "several are compared as they were run"),
        (["snow", "--figure", "made.png"], "name two experiments or more"),
        (["snow", "nowhere"], "experiment 'nowhere': not found"),
        (["snow", "demo"], "demo/experiment.yaml: not found, so nothing was run here"),
    ],
)
def test_what_cannot_be_compared_is_one_line(world, variant, arguments, said):
    folder = str(Path(world.workspace.root).parent)
    ran = CliRunner().invoke(app, ["evaluate", *arguments, "--workspace", folder])
    assert isinstance(ran.exception, SoilweaveError)
    assert said in str(ran.exception)
