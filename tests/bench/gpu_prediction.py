"""Prediction on a GPU: what `predict` walks with, beside cuDNN's bare LSTM, both without TF32."""

from __future__ import annotations

import numpy as np

from bench import data, gpu
from bench.measure import in_turn, per_second
from bench.prediction import bare_lstm, model
from bench.rows import Aim, Row
from model.device import places_per_pass, tf32
from model.streaming import StatefulPredictor
from pipeline.storage.schema import BLOCK_DAYS

SECTION = "prediction on a GPU"
CELLS, ROUNDS, AIM = 16_384, 10, 0.7


def rows(context, device="cuda", cells=CELLS, settings=()):
    """A block of days of recipe `default`, and of `liu2022`."""
    for name in ("default", "liu2022"):
        yield _rate(context, name, device, cells, settings)


def _rate(context, name, device, cells, settings):
    of = data.recipe(name, *settings)
    held = data.training_data(of, device, n_footprints=cells // 16, n_days=4 * BLOCK_DAYS)
    trained, hidden = model(of, held, 0), of.network.hidden_size
    walk = StatefulPredictor(trained, held.cells.static.cpu().numpy(), device)
    forcing = held.cells.forcing.cpu().numpy()
    walk.warm_up(forcing[:, : trained.lead_days], [forcing[:, :BLOCK_DAYS]])
    block = np.ascontiguousarray(forcing[:, BLOCK_DAYS : 2 * BLOCK_DAYS])
    inside = hidden if of.network.input_layer else len(held.features.names)
    places = places_per_pass(device)
    bare = tf32(False)(bare_lstm(inside, hidden, cells, places, False, device))
    actions = {
        "walk": gpu.waited(lambda: walk.advance(block), device),
        "bare": gpu.waited(bare, device),
    }
    taken = in_turn(actions, ROUNDS, told=lambda text: context.told(name, text))
    work = cells * BLOCK_DAYS
    return Row(
        SECTION,
        f"a block of {BLOCK_DAYS} days walked, recipe {name}, hidden {hidden}, {cells} cells in "
        f"parts of {places}",
        "cell-days/s",
        per_second(taken["walk"], work),
        "cuDNN's bare LSTM, fp32",
        per_second(taken["bare"], work),
        Aim(AIM),
        way="moving forcing and results, slow features and heads around the LSTM",
    )
