"""Draws of places and windows. Values tell where they are from, so a batch can be read back."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import tiny
import torch

from model.features import Features
from model.recipe import ModelKey
from model.sampling import Places, draw_batch, draw_places, seeded_generator, steps_per_epoch
from model.scaling import Scale, Scaler

PLAIN = Features(("day",), ("place", "gap"))
JOB = ModelKey("multiscale", 1, 0)
RECORD, FIRST, DAYS, WARM, WINDOW = 40, 9, 25, 2, 6


def telling():
    """Training data whose forcing is the day, first static the place, target place and day."""

    def where(n):
        forcing = np.broadcast_to(np.arange(RECORD)[:, None], (n, RECORD, 1)).astype(np.float16)
        static = np.stack([np.arange(n), np.full(n, np.nan)], 1).astype(np.float32)
        return Places.from_arrays(forcing.copy(), static, "cpu")

    def target(n):
        return torch.arange(n)[:, None] * 1000.0 + torch.arange(RECORD)

    return replace(
        tiny.training_data(record=RECORD, first=FIRST, days=DAYS),
        features=PLAIN,
        scaler=Scaler({}),
        target=Scale(0.0, 1.0),
        cells=where(tiny.N_CELLS),
        sites=where(tiny.N_SITES),
        satellite=target(len(tiny.MEMBERS)),
        insitu=target(tiny.N_SITES),
    )


def batches(n=30, job=JOB, data=None, **changes):
    recipe = tiny.recipe(**{"static_noise": 0} | changes)
    return [draw_batch(recipe, job, data or telling(), step) for step in range(n)]


@pytest.mark.parametrize("n_drawn", [3, 8, 20])
def test_draws_depend_on_the_key_and_stream_alone(n_drawn):
    def drawn(key=(1, 2, 3), stream=0):
        return np.concatenate(draw_places(key, stream, 8, n_drawn, -2, 99)).tolist()

    first = drawn()
    torch.manual_seed(0)
    assert drawn() == first
    others = [drawn((0, 2, 3)), drawn((1, 0, 3)), drawn((1, 2, 0)), drawn(stream=1)]
    assert len({tuple(other) for other in [first, *others]}) == 5


def test_no_place_is_drawn_twice_while_they_suffice_and_all_days_are_met():
    places, starts = zip(*(draw_places((0, 0, n), 0, 7, 7, -2, 3) for n in range(40)), strict=True)
    assert all(sorted(place) == list(range(7)) for place in places)
    assert set(np.concatenate(starts).tolist()) == set(range(-2, 4))
    assert set(draw_places((0, 0, 0), 0, 2, 50, 0, 0)[0].tolist()) == {0, 1}


@pytest.mark.parametrize("operator", ["outputs", "inputs"])
def test_arms_share_their_draws(operator):
    settings = {"static_noise": 0.5, "footprint_operator": operator, "n": 4}
    data = tiny.training_data()
    three = (
        batches(job=JOB._replace(arm=arm), data=data, **settings)
        for arm in ("multiscale", "satellite", "insitu")
    )
    for both, satellite, insitu in zip(*three, strict=True):
        assert torch.equal(both.x, torch.cat([satellite.x, insitu.x]))
        assert np.array_equal(both.members, satellite.members)
        np.testing.assert_array_equal(both.satellite, satellite.satellite)
        np.testing.assert_array_equal(both.insitu, insitu.insitu)
        assert satellite.insitu is None
        assert insitu.members is insitu.satellite is None


def test_all_valid_cells_of_each_footprint_are_in_the_batch_with_its_targets():
    met = set()
    for batch in batches():
        rest = batch.x
        for members, target in zip(batch.members, batch.satellite.numpy(), strict=True):
            footprint = int(target[0] // 1000)
            cells = [cell for cell in tiny.MEMBERS[footprint] if cell >= 0]
            assert sorted(members[members >= 0].tolist()) == cells
            own, rest = rest[: len(cells)], rest[len(cells) :]
            assert own[:, 0, 1].tolist() == cells
            assert (own[:, WARM:, 0].numpy() == target % 1000).all()
            met.add(footprint)
        assert rest.shape == (4, WARM + WINDOW, 3)  # the sites follow
    assert met == set(range(5))


def test_held_out_sites_are_never_drawn_and_targets_are_the_right_days():
    met = set()
    for batch in batches(job=ModelKey("insitu", 1, 0)):
        sites, target = batch.x[:, 0, 1].numpy(), batch.insitu.numpy()
        assert (target // 1000 == sites[:, None]).all()
        assert (target % 1000 == batch.x[:, WARM:, 0].numpy()).all()
        met |= set(sites.tolist())
    assert met == {0, 1, 3, 4, 5}


def test_the_loss_is_on_days_of_the_training_period_alone_and_on_all_of_them():
    judged = {int(d) for b in batches(60) for d in b.insitu.numpy().ravel() % 1000}
    assert judged == set(range(FIRST, FIRST + DAYS))


def test_a_window_is_no_longer_than_the_training_period():
    judged = batches(1, window_days=365)[0].insitu.numpy() % 1000
    np.testing.assert_array_equal(judged, [range(FIRST, FIRST + DAYS)] * 4)


def test_warm_up_may_begin_before_the_record():
    data = replace(telling(), first_day=0)
    seen = {tuple(row) for b in batches(60, data=data) for row in b.x[:, :4, 0].int().tolist()}
    assert (38, 39, 0, 1) in seen  # of a record of 40 days, repeated


@pytest.mark.parametrize(("record", "year"), [(11, 11), (365, 365), (400, 365)])
def test_days_before_the_record_repeat_its_first_year(record, year):
    forcing = np.arange(2 * record).reshape(2, record, 1).astype(np.float32)
    where = Places.from_arrays(forcing, np.zeros((2, 0), np.float32), "cpu")
    window = where.window(torch.tensor([1, 0]), torch.tensor([-3, 2 - year]), 8, 5)
    for row, (place, start) in zip(window[..., 0].tolist(), [(1, -3), (0, 2 - year)], strict=True):
        wanted = range(start - 5, start + 8)
        assert row == [record * place + (d if d >= 0 else d % year) for d in wanted]


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_static_noise_is_one_draw_per_footprint_and_site_constant_in_time(sigma):
    noises = []
    for clean, noisy in zip(batches(), batches(static_noise=sigma), strict=True):
        noise = noisy.x[..., 1] - clean.x[..., 1]
        assert torch.equal(noisy.x[..., 0], clean.x[..., 0])  # none on the forcing
        assert (noisy.x[..., 2] == 0).all()  # what is missing stays missing
        assert torch.allclose(noise, noise[:, :1], atol=1e-6)
        sizes = [*(noisy.members >= 0).sum(1).tolist(), 1, 1, 1, 1]
        parts = torch.split(noise[:, 0], sizes)
        assert all(torch.allclose(part, part[:1], atol=1e-5) for part in parts)
        drawn = [round(float(part[0]), 4) for part in parts]
        assert len(set(drawn)) == len(sizes)  # every place its own
        noises += drawn
    assert len(set(noises)) > 0.9 * len(noises)  # every step its own
    assert np.std(noises) == pytest.approx(sigma, rel=0.15)


def test_operator_inputs_runs_the_network_once_on_the_mean_of_the_cells():
    job, data = ModelKey("satellite", 1, 0), tiny.training_data()
    pairs = (batches(5, job, data, footprint_operator=o) for o in ("inputs", "outputs"))
    for once, each in zip(*pairs, strict=True):
        sizes = (each.members >= 0).sum(1).tolist()
        means = [cells.mean(0) for cells in torch.split(each.x, sizes)]
        torch.testing.assert_close(once.x, torch.stack(means), rtol=1e-4, atol=1e-6)
        assert once.members.tolist() == [[0], [1], [2]]
        np.testing.assert_array_equal(once.satellite, each.satellite)


def test_inputs_and_targets_are_scaled():
    data, job = tiny.training_data(), ModelKey("multiscale", 0, 4)
    actual, told = batches(1, job, data)[0], batches(1, job)[0]
    for name in ("satellite", "insitu"):
        place, day = np.divmod(getattr(told, name).int().numpy(), 1000)
        expected = (getattr(data, name).numpy()[place, day] - 0.22) / 0.07
        np.testing.assert_allclose(getattr(actual, name), expected, rtol=1e-4, atol=1e-6)
    for x, site, start in zip(actual.x[-4:], place[:, 0], day[:, 0], strict=True):
        by_hand = [tiny.inputs_by_hand(data.sites, site, start + d) for d in range(-WARM, WINDOW)]
        np.testing.assert_allclose(x.numpy(), by_hand, rtol=1e-4, atol=1e-5)


def test_batches_differ_by_seed_fold_and_step():
    jobs = [JOB, JOB._replace(seed=1), JOB._replace(fold=-1)]
    drawn = [b for job in jobs for b in batches(2, job)]
    assert len({tuple(b.satellite[:, 0].tolist()) for b in drawn}) == 6
    assert len({tuple(b.insitu[:, 0].tolist()) for b in drawn}) == 6


def test_generators_differ_by_seed_fold_step_and_stream():
    others = [JOB._replace(seed=1), JOB._replace(fold=-1)]
    keys = [(JOB, 0, 0), (JOB, 1, 0), (JOB, 0, 1), *((job, 0, 0) for job in others)]
    assert len({seeded_generator(*key).initial_seed() for key in keys}) == 5


@pytest.mark.parametrize(
    "sizes", [(50, 30, 412, 731), (3, 6, 5, 25), (50, 30, 40, 30), (5, 5, 5, 5), (8, 97, 8, 100)]
)
def test_steps_per_epoch_leave_one_percent_of_place_days_undrawn(sizes):
    missed, steps = max(0.0, 1 - prod(sizes[:2]) / prod(sizes[2:])), 1
    while missed**steps > 0.01:
        steps += 1
    assert steps_per_epoch(*sizes) == steps
    assert steps_per_epoch(50, 30, 412, 731) == 923  # as published
