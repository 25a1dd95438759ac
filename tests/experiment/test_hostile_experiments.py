"""Experiments, recipes and `--set` from anywhere: what is hostile or mistaken is one line."""

import pytest

from pipeline import safe_yaml
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import load

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 10)}]}}\n"
    for a, b in zip("abcdefg", "bcdefgh", strict=True)
)

TEXTS = {
    "an alias bomb": (BOMB, "more than 100,000 values"),
    "a bomb of merges": (MERGES, "more than 100,000 values"),
    "an alias of itself": ("a: &a [*a]", "contains itself in line 1"),
    "a long number": (f"train: {{epochs: {'9' * 5000}}}", "a number of 5,000 characters in line 1"),
    "a long hexadecimal": (f"seed: 0x{'f' * 5000}", "a number of 5,002 characters"),
    "a long sexagesimal": (f"seed: 1{':59' * 3000}", "a number of 9,001 characters"),
    "a key twice": ("name: a\ntitle: x\nname: b", "key 'name' is given twice in line 3"),
    "a nested key twice": ("train:\n  seed: 1\n  seed: 2", "key 'seed' is given twice in line 3"),
    "a day that is none": ("period: [2020-13-45, 2020-12-31]", "is not valid YAML"),
    "an object of Python": ("a: !!python/object/apply:os.mkdir [MARKER]", "is not valid YAML"),
    "brackets": ("[" * 20_000, "is nested too deeply"),
    "a long text": ("a: " + "x" * 2**20, "1,048,576 bytes"),
    "a zero byte": ("a: \0", "is not valid YAML"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_experiments_and_recipes(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    text, says = TEXTS[what]
    (tmp_path / "odd.yaml").write_text(text)
    for name, settings in (("odd.yaml", ()), ("demo", ("recipe=odd.yaml",))):
        with pytest.raises((ConfigError, StoreError)) as caught:
            load.load_experiment(name, settings)
        assert says in str(caught.value), what
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (f"train.epochs={'9' * 5000}", "a number of 5,000 characters"),
        ("groups={a: 1, a: 2}", "key 'a' is given twice"),
        (f"qc={'[' * 20_000}", "is nested too deeply"),
        ("period=[2020-13-45, 2020-12-31]", "is not valid YAML"),
    ],
)
def test_settings_of_the_command_line(setting, says):
    with pytest.raises(ConfigError, match=says):
        load.load_experiment("demo", [setting])


def test_plain_yaml_is_what_yaml_makes_of_it():
    text = (
        "a: &a {x: 1, y: [1.5, 2020-01-01, ~, yes]}\nb: {<<: *a, x: 2}\nc: 0x1f\n1: one\n'1': two"
    )
    assert safe_yaml.load(text, "here") == safe_yaml.yaml.safe_load(text)
    assert safe_yaml.load("", "here") is None
