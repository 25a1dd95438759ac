"""Settings under the names that they had before: in files, `--set`, recipes and old workspaces."""

from __future__ import annotations

import pytest
import yaml

from pipeline import files
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import load, renamed
from pipeline.storage import schema
from pipeline.storage.artefacts import Artefact, Workspace
from pipeline.tracking import contents

# Old name, new name, and a value that is not the default.
CASES = [
    ("qc.several", "qc.duplicate_sites", "mean"),
    ("planet.without", "planet.omit_errors", ("site_gaps",)),
    ("chosen_on", "tuned_on", "my own sites"),
    ("compute.threads_per_worker", "compute.cpus_per_worker", 3),
]

BOTH = "{0} and {1} are the same setting: give only {1}"


def value_of(experiment, name):
    for part in name.split("."):
        experiment = getattr(experiment, part)
    return experiment


def tree_of(name, value):
    *sections, leaf = name.split(".")
    tree = {leaf: list(value) if isinstance(value, tuple) else value}
    for section in reversed(sections):
        tree = {section: tree}
    return tree


def setting(name, value):
    return f"{name}={yaml.safe_dump(list(value) if isinstance(value, tuple) else value).strip()}"


def written(folder, *trees):
    """An experiment file: the demo's, with some settings more."""
    path = folder / "mine.yaml"
    merged = load._merge(load.read_settings("experiments", "demo"), *trees)
    path.write_text(yaml.safe_dump(merged))
    return str(path)


def test_every_renamed_setting_is_a_case_here_and_its_new_name_is_a_setting():
    assert {old: new for old, new, _ in CASES} == renamed.RENAMED_SETTINGS
    for old, new, _ in CASES:
        *section, leaf = new.split(".")
        known = load._known_keys(section)
        assert leaf in known
        assert old.split(".")[-1] not in known
        assert old.split(".")[:-1] == section


@pytest.mark.parametrize(("old", "new", "value"), CASES)
def test_an_old_name_is_read_and_the_new_one_is_written(old, new, value, tmp_path):
    path = written(tmp_path, tree_of(old, value))
    experiments = [
        load.load_experiment(path),
        load.load_experiment("demo", [setting(old, value)]),
        load.load_experiment("demo", [setting(new, value)]),
    ]
    for experiment in experiments:
        assert value_of(experiment, new) == value
    workspace = Workspace(str(tmp_path / "workspace"))
    workspace.describe(experiments[0])
    text = (tmp_path / "workspace" / "experiment.yaml").read_text()
    assert f"{new.split('.')[-1]}:" in text
    assert f"{old.split('.')[-1]}:" not in text


@pytest.mark.parametrize(("old", "new", "value"), CASES)
def test_an_old_workspace_is_described_with_the_new_names(old, new, value, tmp_path):
    tree = load.load_experiment("demo").model_dump(mode="json")
    *sections, leaf = new.split(".")
    section = tree
    for part in sections:
        section = section[part]
    del section[leaf]
    section[old.split(".")[-1]] = list(value) if isinstance(value, tuple) else value
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(tree))
    assert value_of(Workspace(str(tmp_path)).described(), new) == value


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
@pytest.mark.parametrize(("old", "new", "value"), CASES)
def test_what_is_set_wins_over_the_file_by_either_name(old, new, value, first, second, tmp_path):
    names = (old, new)
    path = written(tmp_path, tree_of(names[first], value))
    others = {"qc": "longest", "planet": ("site_error",), "tuned_on": "others", "compute": 5}
    other = others[new.split(".")[0]]
    experiment = load.load_experiment(path, [setting(names[second], other)])
    assert value_of(experiment, new) == other


@pytest.mark.parametrize(("old", "new", "value"), CASES)
def test_both_names_at_once_are_refused_and_named(old, new, value, tmp_path):
    both = BOTH.format(old, new)
    path = written(tmp_path, tree_of(old, value), tree_of(new, value))
    with pytest.raises(ConfigError) as caught:
        load.load_experiment(path)
    assert str(caught.value) == f"experiment {path}: {both}"
    with pytest.raises(ConfigError) as caught:
        load.load_experiment("demo", [setting(old, value), setting(new, value)])
    assert str(caught.value) == f"--set: {both}"
    tree = load.load_experiment("demo").model_dump(mode="json")
    described = load._merge(tree, tree_of(old, value), tree_of(new, value))
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(StoreError, match=both):
        Workspace(str(tmp_path)).described()


def test_all_settings_that_are_given_twice_are_told_at_once(tmp_path):
    trees = [tree_of(name, value) for *names, value in CASES for name in names]
    with pytest.raises(ConfigError) as caught:
        load.load_experiment(written(tmp_path, *trees))
    told = {BOTH.format(old, new) for old, new, _ in CASES}
    assert set(caught.value.problems) == told


def test_a_recipe_may_have_old_names(tmp_path):
    tree = load.read_settings("recipes", "liu2022") | {"chosen_on": "my own sites"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    recipe = f"recipe={tmp_path}/mine.yaml"
    assert load.load_experiment("demo", [recipe]).tuned_on == "my own sites"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree | {"tuned_on": "others"}))
    with pytest.raises(ConfigError, match="chosen_on and tuned_on are the same setting"):
        load.load_experiment("demo", [recipe])


@pytest.mark.parametrize("artefact", ["cube", "planet"])
def test_artefacts_recorded_under_old_names_are_complete(artefact, tmp_path):
    settings = [setting(new, value) for _, new, value in CASES]
    inputs = schema.identity(load.load_experiment("demo", settings), artefact)
    first = {new: old for old, new in renamed.RENAMED_SETTINGS.items()}
    recorded = {first.get(key, key): value for key, value in inputs.items()}
    assert recorded.keys() != inputs.keys()
    made = Artefact(artefact, f"{tmp_path}/{artefact}/")
    made.begin(recorded)
    made.commit(recorded, [])
    assert made.manifest()["inputs"] == recorded
    assert made.complete(inputs)
    assert made.recorded(inputs) == recorded
    assert made.changed_settings(made.manifest(), load.load_experiment("demo", settings)) == ""
    told = {
        "cube": "qc.duplicate_sites mean -> keep",
        "planet": "planet.omit_errors ['site_gaps'] -> []",
    }[artefact]
    plain = load.load_experiment("demo")
    assert made.changed_settings(made.manifest(), plain) == told
    with pytest.raises(StoreError) as caught:
        made.complete(schema.identity(plain, artefact))
    assert f": was made with other settings: {told}; keep it and " in str(caught.value)


def test_mlflow_is_asked_for_the_run_of_the_settings_by_their_first_names(tmp_path):
    experiment = load.load_experiment("demo")
    tree = experiment.model_dump(mode="json", exclude={"compute", "product", "reference_period"})
    tree["chosen_on"] = tree.pop("tuned_on")
    tree["qc"]["several"] = tree["qc"].pop("duplicate_sites")
    tree["planet"]["without"] = tree["planet"].pop("omit_errors")
    logged = contents.loggable_digests(experiment, Workspace(str(tmp_path)))["logged"]
    assert logged["experiment"] == files.sha256_of_json(tree)
    stated = load.load_experiment("demo", ["product.doi=10.5281/zenodo.1"])  # is the same run
    again = contents.loggable_digests(stated, Workspace(str(tmp_path)))["logged"]
    assert again == logged


def test_a_section_may_be_renamed_with_all_that_is_in_it(monkeypatch):
    monkeypatch.setattr(renamed, "RENAMED_SETTINGS", {"judging": "scoring"})
    tree = {"name": "a", "judging": {"min_days": 3, "groups": {"judging": ["b"]}}}
    new = {"name": "a", "scoring": {"min_days": 3, "groups": {"judging": ["b"]}}}
    assert renamed.with_new_names(tree) == new
    assert renamed.with_original_names(new) == tree
    assert renamed.new_name("judging.min_days") == "scoring.min_days"
    assert renamed.new_name("judgings") == "judgings"
    assert renamed.recorded_name("scoring.min_days", {"judging.min_days"}) == "judging.min_days"
    assert renamed.recorded_name("scoring.min_days", {"scoring.min_days"}) == "scoring.min_days"
    assert renamed.recorded_name("scoring.groups", {"judging.min_days"}) == "scoring.groups"
