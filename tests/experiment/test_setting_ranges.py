"""Every numeric setting has a finite range, which the error says."""

import pytest

from pipeline.errors import ConfigError
from pipeline.experiment import config, load


@pytest.mark.parametrize(
    ("setting", "accepted"),
    [
        ("train.learning_rate=inf", "more than 0 and at most 1,000,000"),
        ("train.learning_rate=.nan", "more than 0 and at most 1,000,000"),
        ("train.learning_rate=1e400", "more than 0 and at most 1,000,000"),
        ("train.learning_rate=0", "more than 0 and at most 1,000,000"),
        ("train.weight_decay=.inf", "at least 0 and at most 10"),
        ("train.gradient_clip=.inf", "more than 0 and at most 1,000,000"),
        ("train.static_noise=.inf", "at least 0 and at most 100"),
        ("network.forget_bias=-.inf", "at least -100 and at most 100"),
        ("network.weight_dropout=.nan", "at least 0 and less than 1"),
        ("network.linear_weight=1", "at least 0 and less than 1"),
        ("loss.insitu_weight=.nan", "at least 0 and at most 1"),
        ("folds.block_km=.inf", "more than 0 and at most 40,000"),
        ("folds.buffer_km=.inf", "at least 0 and at most 40,000"),
        ("judging.max_footprint_km=.inf", "more than 0 and at most 40,000"),
        ("qc.frozen_below_degc=.nan", "at least -100 and at most 100"),
        ("train.learning_rate=fast", "more than 0 and at most 1,000,000"),
        ("judging.min_days=inf", "at least 2 and at most 36,600"),
        ("n_seeds=1e6", "at least 1 and at most 1,000,000"),
        ("train.updates=1000000000000000000000000000000", "at least 1 and at most 100,000,000"),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_the_range(setting, accepted):
    with pytest.raises(ConfigError) as caught:
        load.load_experiment("scan", [setting])
    key, _, _ = setting.partition("=")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{key}: found ")
    assert caught.value.problems[0].endswith(f"; accepted: {accepted}")


def test_a_number_inside_a_list_or_a_table_has_a_range_too():
    snow = "variables={snow: {kind: target, long_name: snow, units: m, minimum: -.inf, maximum: 1}}"
    with pytest.raises(ConfigError) as caught:
        load.load_experiment("scan", [snow, "qc.depth_m=[0.0, .inf]"])
    assert caught.value.problems == (
        "variables.snow.minimum: found -inf; accepted: at least -1e+30 and at most 1e+30",
        "qc.depth_m.1: found inf; accepted: at least 0 and at most 1,000",
    )


def numbers(node, place):
    """Every number of a JSON schema that has no lower or no upper limit."""
    lower = {"minimum", "exclusiveMinimum"} & node.keys()
    upper = {"maximum", "exclusiveMaximum"} & node.keys()
    is_number = node.get("type") in ("integer", "number") and "enum" not in node
    if is_number and not (lower and upper):
        yield place
    inner = [*node.get("anyOf", ()), *node.get("prefixItems", ())]
    inner += [node[k] for k in ("items", "additionalProperties") if isinstance(node.get(k), dict)]
    for part in inner:
        yield from numbers(part, place)
    for name, part in node.get("properties", {}).items():
        yield from numbers(part, f"{place}.{name}")


def test_every_number_of_an_experiment_has_a_range():
    schema = config.Experiment.model_json_schema()
    parts = {"experiment": schema, **schema["$defs"]}
    assert [found for name, part in parts.items() for found in numbers(part, name)] == []
