"""What `make bench` makes of its samples: order, ratios, aims, tables; its rows on tiny sizes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from bench import __main__, data, gpu, gpu_prediction, gpu_stages, sizes, training
from bench.aside import Aside
from bench.measure import fastest, in_turn, ratio, spread
from bench.rows import Aim, Row
from bench.table import cells, for_page, number
from typer.testing import CliRunner

from model.recipe import ModelKey

SMALL = ("network.hidden_size=4", "train.footprints_per_step=2", "train.sites_per_step=2")
TINY = {"n_footprints": 6, "per_footprint": 2, "n_sites": 10, "n_days": 200}


def row(**changes):
    given = {"section": "s", "what": "w", "unit": "GB/s", "samples": [2.0, 4.0, 3.0]}
    return Row(**given | changes)


def test_actions_run_in_turn_and_warm_rounds_are_not_counted():
    order = []
    actions = {name: lambda name=name: order.append(name) or 1.5 for name in "ab"}
    taken = in_turn(actions, rounds=2, warm=1)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(seconds) for seconds in taken.values()] == [2, 2]


def test_an_action_may_say_itself_what_it_took():
    taken = in_turn({"self": lambda: 2.5, "timed": lambda: None}, rounds=3)
    assert taken["self"] == [2.5] * 3
    assert all(seconds >= 0 for seconds in taken["timed"])
    assert fastest({"slow": lambda: 2.0, "quick": lambda: 1.0}) == "quick"


def test_a_ratio_is_taken_round_by_round():
    found = ratio([1.0, 10.0, 100.0], [2.0, 20.0, 50.0])
    assert (found.median, found.low, found.high) == (0.5, 0.5, 1.25)
    assert ratio([1.0, 3.0], [4.0]).median == 0.5
    assert spread([1, 2, 3, 4, 5]).low == 2


@pytest.mark.parametrize(
    ("aim", "beside", "missed"),
    [
        (None, [], None),
        (Aim(1.5), [2.0, 2.0, 2.0], 0.0),
        (Aim(2.0), [2.0, 2.0, 2.0], 1 / 3),
        (Aim(3.0, of_ratio=False), [], 0.0),
        (Aim(2.0, least=False, of_ratio=False), [], 0.5),
        (Aim(4.0, least=False, of_ratio=False), [], 0.0),
    ],
)
def test_aims_are_met_or_missed_by_so_much(aim, beside, missed):
    found = row(aim=aim, beside="torch", beside_samples=beside).missed
    assert found == (missed if missed is None else pytest.approx(missed))


def test_the_table_tells_spread_ratio_limit_and_verdict():
    slow = row(
        beside="torch",
        beside_samples=[4.0, 4.0, 4.0],
        aim=Aim(0.95),
        limit_of="memcpy",
        limit=[6.0, 6.0, 6.0],
        way="copies",
    )
    expected = ("w", "3 [2.5, 3.5] GB/s", "torch: 4 [4, 4]", "0.75 [0.625, 0.875]")
    expected += ("50 % of memcpy", ">= 0.95x", "missed by 27 %", "copies")
    assert cells(slow) == expected
    good = row(aim=Aim(3.0, of_ratio=False), way="nothing", samples=[5.0], note="once")
    assert cells(good) == ("w (once)", "5 GB/s", "", "", "", ">= 3 GB/s", "met", "")
    page = for_page([slow, good])
    assert page.count("| **s** |") == 1
    assert len({line.count("|") for line in page.splitlines()}) == 1


def test_numbers_have_three_digits():
    told = [number(value) for value in (0, 1234567.0, 45678.0, 12.345, 0.0567, 8.1e-5, math.nan)]
    assert told == ["0", "1.23 M", "45,700", "12.3", "0.0567", "8.1e-05", "?"]


def test_rows_come_back_from_json():
    whole = row(aim=Aim(0.9, least=False), beside="b", beside_samples=[1.0], limit=[2.0])
    assert Row.from_dict(json.loads(json.dumps(whole.as_dict()))) == whole


def grown(seconds, columns=10, own_mb=100, share=0.8):
    """What `bench.growth` keeps of a run."""
    stage = {"seconds": 60.0, "megabytes": 12.5, "objects": 34, "all_mb": 900, "driver": None}
    stage |= {"worker": {"own_mb": own_mb}, "of_promised": {"worker": share}}
    return {"cells": [20, columns], "days": 730, "seconds": seconds, "stages": {"predict": stage}}


def test_sections_are_kept_and_the_page_is_filled(tmp_path):
    folder, page = tmp_path / "bench", tmp_path / "benchmarks.md"
    page.write_text("<!-- cpu: made by make bench -->\n<!-- end of cpu -->")
    folder.mkdir()
    runs = {"conus": grown(330.0, 20), "half": grown(150.0, share=0.4), "quarter": grown(80.0)}
    runs["quarter, four years"] = grown(160.0, own_mb=120, share=1.25)
    (folder / sizes.KEPT).write_text(json.dumps(runs))
    before = page.read_text()
    __main__.main(folder=folder, docs=tmp_path, only=["sizes"])
    assert page.read_text() == before  # its other sections would be lost
    measured = json.loads((folder / "bench.json").read_text())
    others = measured["sizes"] | {"rows": []}
    measured = dict.fromkeys(__main__.CPU, others) | measured
    (folder / "bench.json").write_text(json.dumps(measured))
    __main__.main(folder=folder, docs=tmp_path, only=["sizes"])
    kept = json.loads((folder / "bench.json").read_text())["sizes"]
    assert kept["machine"]["versions"]["torch"] == torch.__version__
    rows = [Row.from_dict(each) for each in kept["rows"]]
    missed = [0, 0.25, 0, 0.25, 2.2 / 2.1 - 1, 1.2 / 1.1 - 1]
    assert [each.missed for each in rows] == pytest.approx(missed)
    told = page.read_text()
    assert "60 s, 12 MB in 34 objects, 900 MB of memory in all) | 0.8 |" in told
    assert "| <= 1, >= 0.5 | met |" in told
    assert not [*sizes.rows(__main__.Context(tmp_path, None, True))]


@pytest.mark.runs  # it takes ten seconds
def test_sections_for_a_gpu_on_tiny_sizes(monkeypatch):
    for section in (gpu, gpu_prediction):
        monkeypatch.setattr(section, "ROUNDS", 1)
    context = __main__.Context(None, None, True)
    context.told = lambda *text: None
    monkeypatch.setattr(gpu, "GROUPS", [replace(g, n_models=2) for g in gpu.GROUPS])
    small = (*SMALL, "train.window_days=3", "train.warmup_days=1")
    rows = [*gpu.rows(context, "cpu", TINY, steps=1, settings=small)]
    assert [len(each.samples) for each in rows] == [1] * 11
    aims = [None if each.aim is None else each.aim.number for each in rows]
    assert aims == [275, None, None, 560, *[None] * 5, 100, pytest.approx(83.3, 1e-2)]
    assert "projected, not run: 40 epochs" in rows[0].note
    assert "fp32 with TF32" in rows[6].what
    rows = [*gpu_prediction.rows(context, "cpu", cells=64, settings=SMALL)]
    assert [(len(each.samples), each.aim.number) for each in rows] == [(1, 0.7)] * 2
    parts = gpu_stages.start("cpu", TINY, small)
    before = ["the device", "data", "networks", "networks", "first update"]
    assert [name.startswith(part) for name, part in zip(parts, before, strict=False)] == [True] * 5
    assert parts["all"] == pytest.approx(sum([*parts.values()][:5]))


def test_without_a_gpu_its_section_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    app = __main__.typer.Typer()
    app.command()(__main__.main)
    found = CliRunner().invoke(app, ["--gpu"])
    assert found.exit_code == 2
    assert found.output.splitlines() == [
        "bench --gpu: no CUDA device here; run it on a machine with a GPU"
    ]
    assert CliRunner().invoke(app, ["--only", "nothing"]).exit_code == 2


def test_made_up_data_train_as_a_cube_does():
    of = data.recipe("liu2022", "network.hidden_size=6", "train.footprints_per_step=3")
    held = data.training_data(of, **TINY)
    step = training.loop(of, held, ModelKey("multiscale", -1, 0))
    step()
    assert data.sequences(of, 2) == 3 * 2 + of.train.sites_per_step
    assert data.days(of) == 30


def test_operations_of_a_day_are_those_of_its_products():
    of = data.recipe("liu2022", "network.hidden_size=6")
    products = 14 * 6 + 6 * 24 + 6 * 24  # input layer; into and within the LSTM
    assert data.flops(of, 14, backward=False) == 2 * products
    assert data.flops(of, 14) == 6 * products


def test_published_epochs_at_conus_size_have_the_published_steps():
    of = data.recipe("liu2022").train
    drawn = of.footprints_per_step, of.window_days
    assert gpu.steps_per_epoch(*drawn, gpu.SIZES["n_footprints"], gpu.SIZES["n_days"]) == 20_860


def test_a_process_of_its_own_acts_when_called(tmp_path):
    with Aside("bench.aside:napping", tmp_path / "log", keep=True, threads=1, seconds=0.05) as nap:
        assert min(nap() for _ in range(2)) >= 0.05
    assert nap.process.returncode == 0
    with pytest.raises(RuntimeError, match="no_such_thing"):
        Aside("bench.aside:no_such_thing", tmp_path / "log", keep=False)


def test_neuralhydrology_is_given_the_same_numbers(tmp_path):
    peers = pytest.importorskip("bench.peers")
    of = peers.plain_recipe(8, 4, 30, 5, "fp32")
    held = data.training_data(of, **TINY)
    peers.write(tmp_path, held)
    told = peers.settings(tmp_path, held, of, 3)
    assert told["seq_length"] - told["predict_last_n"] == of.train.warmup_days
    basin = peers.xr.load_dataset(tmp_path / "time_series" / "basin003.nc")
    np.testing.assert_array_equal(basin["moisture"], held.insitu[3])
    np.testing.assert_array_equal(basin["longwave"], held.sites.forcing[3, :, 2].float())


def test_a_projection_scales_with_the_machine_and_the_region():
    from bench import projection

    rate = {"train": 2e5, "predict": 4e5, "prepare": 15.0, "cube": 2e-5, "maps": 7e-6}
    rate["walked"] = 6e5

    def hours(region, machine):
        return [float(text) for text in projection.line(region, machine, rate)[2:5]]

    conus, earth = projection.REGIONS
    small, large = projection.MACHINES[:2]
    assert hours(earth, small)[2] == pytest.approx(16 * hours(conus, small)[2], rel=0.1)
    assert hours(earth, large)[2] == pytest.approx(hours(earth, small)[2] / 32, rel=0.1)
    steps = projection.SEQUENCES * projection.WINDOW * conus.updates
    assert hours(conus, small)[1] == pytest.approx(steps / 4e5 / 3600, abs=0.05)
    assert all(text in projection.table(rate) for text in ("CONUS", "Earth", "Assumed"))
