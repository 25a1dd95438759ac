"""The experiment: presets are valid, mistakes are named all at once, layers win in order."""

import json
import re

import pytest
import yaml
from pydantic import BaseModel

from model.features import SlowFeature
from pipeline.errors import ConfigError, StoreError
from pipeline.evaluate import scoring
from pipeline.evaluate.report import page
from pipeline.experiment import config, load
from pipeline.experiment.variables import Variable
from pipeline.storage import schema as storage_schema

EXPERIMENTS, RECIPES = load.list_presets("experiments"), load.list_presets("recipes")
UNITS = ("day", "days", "km", "degrees", "degc", "footprints", "updates", "per_step")


def written(folder, **changes):
    """A valid experiment with changes at its top, in a file."""
    tree = load.read_settings("experiments", "scan") | changes
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def problems(*args):
    with pytest.raises(ConfigError) as caught:
        load.load_experiment(*args)
    return caught.value


def models_of(kind, found=None):
    """Every config class that a class is made of."""
    found = {} if found is None else found
    found[kind.__name__] = kind
    for field in kind.model_fields.values():
        for part in re.findall(r"\w+", str(field.annotation)):
            for known in (*vars(config).values(), SlowFeature, Variable):
                is_model = isinstance(known, type) and issubclass(known, BaseModel)
                if is_model and known.__name__ == part and part not in found:
                    models_of(known, found)
    return found


MODELS = models_of(config.Experiment)
FIELDS = [(kind, name) for kind in MODELS.values() for name in kind.model_fields]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_preset_validates_with_every_recipe(recipe):
    for name in EXPERIMENTS:
        experiment = load.load_experiment(name, [f"recipe={recipe}"])
        assert (experiment.name, experiment.recipe) == (name, recipe)
        again = config.Experiment.model_validate_json(experiment.model_dump_json())
        assert again == experiment, name


def test_every_preset_has_a_title_of_one_line():
    for kind, names in (("experiments", EXPERIMENTS), ("recipes", RECIPES)):
        for name in names:
            title = load.read_settings(kind, name)["title"]
            assert title, f"{kind}/{name} has no title"
            assert "\n" not in title, f"{kind}/{name}: {title}"


@pytest.mark.parametrize(
    ("key", "value", "suggestion"),
    [
        ("foldz", {}, "folds"),
        ("train.updtes", 3, "updates"),
        ("domain.west_degree", 3, "west_degrees"),
        ("judging.min_day", 3, "min_days"),
        ("planet.seeed", 3, "seed"),
        ("network.hiden_size", 8, "hidden_size"),
        ("loss.insitu_wieght", 0.5, "insitu_weight"),
    ],
)
def test_a_misspelt_key_is_refused_with_a_suggestion(key, value, suggestion):
    error = problems("scan", [f"{key}={json.dumps(value)}"])
    assert f"unknown key '{key}'; did you mean '{suggestion}'?" in str(error)
    assert "\n" not in str(error)


def test_a_misspelt_key_inside_a_list_or_a_table_is_refused_with_a_suggestion(tmp_path):
    slow = [{"variable": "precipitation", "dayz": [3]}]
    snow = {"kind": "target", "long_name": "snow", "unit": "m", "minimum": 0, "maximum": 1}
    text = str(problems(written(tmp_path, inputs={"slow": slow}, variables={"snow": snow})))
    assert "unknown key 'inputs.slow.0.dayz'; did you mean 'days'?" in text
    assert "unknown key 'variables.snow.unit'; did you mean 'units'?" in text


def test_every_problem_is_told_at_once(tmp_path):
    path = written(
        tmp_path, foldz={}, n_seeds=0, inputs_from="cells", train={"updtes": 1, "window_days": 0}
    )
    error = problems(path)
    for key in ("foldz", "n_seeds", "inputs_from", "train.updtes", "train.window_days"):
        assert any(key in problem for problem in error.problems), key
    assert path in str(error)
    assert "5 problems" in str(error)


def test_a_missing_section_is_named(tmp_path):
    tree = load.read_settings("experiments", "scan")
    del tree["domain"]
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(tree))
    assert "domain is missing" in str(problems(str(tmp_path / "bare.yaml")))


def test_set_wins_over_the_experiment_and_the_experiment_over_the_recipe(tmp_path):
    recipe = load.read_settings("recipes", "default")["train"]
    assert recipe["window_days"] != 61
    path = written(tmp_path, train={"window_days": 61, "warmup_days": 7})
    plain = load.load_experiment(path)
    assert (plain.train.window_days, plain.train.warmup_days) == (61, 7)
    assert plain.train.sites_per_step == recipe["sites_per_step"]
    chosen = load.load_experiment(path, ["train.window_days=62"])
    assert (chosen.train.window_days, chosen.train.warmup_days) == (62, 7)
    other = load.load_experiment(path, ["recipe=liu2022"])
    assert (other.network.hidden_size, other.train.window_days) == (256, 61)


def test_updates_replace_epochs_and_epochs_updates():
    published = load.load_experiment("scan", ["recipe=liu2022"])
    assert (published.train.updates, published.train.epochs) == (None, 40)
    short = load.load_experiment("scan", ["recipe=liu2022", "train.updates=2000"])
    assert (short.train.updates, short.train.epochs) == (2000, None)
    long = load.load_experiment("scan", ["train.epochs=3"])
    assert (long.train.updates, long.train.epochs) == (None, 3)
    error = problems("scan", ["train.epochs=3", "train.updates=5"])
    assert "give either updates or epochs; found updates: " in str(error)


@pytest.mark.parametrize("key", ["period", "train_period", "test_period"])
def test_a_period_that_ends_before_it_begins_is_refused(key):
    text = str(problems("scan", [f"{key}=[2017-01-02, 2016-01-01]"]))
    assert f"{key}: " in text
    assert "last day 2016-01-01 is before first day 2017-01-02" in text


@pytest.mark.parametrize("key", ["train_period", "test_period"])
def test_a_period_outside_the_cube_is_refused_with_both_spans(key):
    text = str(problems("scan", [f"{key}=[2016-01-01, 2018-01-01]"]))
    assert f"{key} 2016-01-01..2018-01-01" in text
    assert "period 2015-04-01..2017-03-31" in text


@pytest.mark.parametrize(
    ("arm", "source"),
    [("multiscale", "insitu"), ("multiscale", "satellite"), ("insitu", "insitu")],
)
def test_an_arm_needs_its_source(arm, source):
    error = problems("scan", [f"arms=[{arm}]", f"sources.{source}=null"])
    assert f"arm {arm} needs sources.{source}" in str(error)


def test_a_target_that_is_no_variable_is_refused_with_those_that_are():
    assert "accepted: ['soil_moisture']" in str(problems("scan", ["target=moisture"]))


def test_an_unknown_name_is_refused_with_a_suggestion_and_the_presets():
    text = str(problems("scam"))
    assert "experiment 'scam': not found; did you mean 'scan'?" in text
    assert "presets: conus, conus-nldas, demo, demo-few, demo-full, global, gsm3, gsm3-" in text
    assert "did you mean 'default'" in str(problems("scan", ["recipe=defualt"]))


def test_few_probes_are_those_of_the_demo_and_nothing_else_differs():
    many, few = (load.load_experiment(name).model_dump() for name in ("demo", "demo-few"))
    few["folds"]["train_sites"] = many["folds"]["train_sites"]
    different = {key for key in many if many[key] != few[key]}
    assert different == {"name", "title", "arms"}


def test_a_path_that_is_not_there_is_refused(tmp_path):
    missing = str(tmp_path / "absent.yaml")
    assert missing in str(problems(missing))


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "name\n"])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, text):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    assert str(path) in str(problems(str(path)))


def test_a_folder_is_no_experiment(tmp_path):
    with pytest.raises(StoreError, match="give the name of a file, not of a folder"):
        load.load_experiment(str(tmp_path), [], None)


@pytest.mark.parametrize(
    "settings",
    [
        ["train.updates"],
        ["=3"],
        ["train.updates=["],
        ["train=5"],
        ["train=5", "train.updates=3"],
        ["train.updates.more=3"],
        ["recipe=[default]"],
    ],
)
def test_a_setting_that_cannot_be_used_is_one_clear_error(settings):
    assert "\n" not in str(problems("scan", settings)).strip()


def test_every_field_is_described_and_names_its_unit():
    assert len(FIELDS) > 100
    for kind, name in FIELDS:
        field = kind.model_fields[name]
        section = MODELS.get(getattr(field.annotation, "__name__", ""))
        described = field.description or (section is not None and section.__doc__)
        assert described, f"{kind.__name__}.{name} has no description"
        counted = re.search(r"\b(days|km|degC|degrees|temperature|edge)\b", field.description or "")
        numeric = re.search(r"\b(int|float)\b", str(field.annotation))
        if counted and numeric and kind is not Variable:  # a Variable says its own units
            assert name.endswith(UNITS), f"{kind.__name__}.{name} does not say its unit"


def test_the_json_schema_round_trips_and_forbids_unknown_keys():
    schema = config.Experiment.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    for definition in (schema, *schema["$defs"].values()):
        assert definition["additionalProperties"] is False
        assert definition["description"]


@pytest.mark.parametrize("name", ["scan-later-known", "scan-later-unseen", "scan-region"])
def test_out_of_time_and_out_of_place_are_scan_but_for_periods_and_folds(name):
    other = {"name", "title", "train_period", "test_period", "folds"}
    found, scan = load.load_experiment(name), load.load_experiment("scan")
    assert found.model_dump(exclude=other) == scan.model_dump(exclude=other)
    assert found.folds == scan.folds or found.folds.kind != "block"


def test_settings_that_came_later_leave_what_was_made_before_as_it_is():
    def keys(artefact, *settings):
        return storage_schema.identity(load.load_experiment("demo", list(settings)), artefact)

    assert {"train.max_footprints", "planet.ocean_share", "planet.forcing_degrees"}.isdisjoint(
        keys("models") | keys("planet")
    )
    assert "reference_period" not in keys("maps")
    given = "reference_period=[2016-01-01, 2018-12-31]"
    assert keys("maps", given)["reference_period"] == ["2016-01-01", "2018-12-31"]
    for artefact in {*storage_schema.SECTIONS} - {"maps"}:
        assert keys(artefact, given) == keys(artefact)
    assert keys("models", "train.max_footprints=9")["train.max_footprints"] == 9
    assert keys("planet", "planet.ocean_share=0.5")["planet.ocean_share"] == 0.5


def test_a_recipe_of_ones_own_says_what_it_was_chosen_on(tmp_path):
    tree = load.read_settings("recipes", "liu2022") | {"tuned_on": "my own sites"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    experiment = load.load_experiment("scan", [f"recipe={tmp_path}/mine.yaml"])
    summary = scoring.summary_header(experiment, experiment.test_period)
    assert any("were chosen on my own sites" in note for note in page.notes(experiment, summary))
    assert "tuned_on" not in storage_schema.identity(experiment, "models")


def test_the_product_is_not_stated_by_default_and_changes_no_artefact():
    plain = load.load_experiment("demo")
    assert (plain.product.stated_license, plain.product.stated_creator) == ("not stated",) * 2
    settings = ("license=CC-BY-4.0", "creator='A. Group'", "doi=https://doi.org/10.5281/zenodo.1")
    told = load.load_experiment("demo", [f"product.{setting}" for setting in settings])
    assert (told.product.stated_license, told.product.stated_creator) == ("CC-BY-4.0", "A. Group")
    assert told.product.doi == "10.5281/zenodo.1"
    for artefact in storage_schema.SECTIONS:
        assert storage_schema.identity(told, artefact) == storage_schema.identity(plain, artefact)
    assert storage_schema.changed_settings(plain, told) == {}


@pytest.mark.parametrize("setting", ["doi=zenodo.1", "license='of my own'", "creator_url=here"])
def test_what_a_catalog_could_not_say_is_refused(setting):
    (problem,) = problems("demo", [f"product.{setting}"]).problems
    assert problem.startswith(f"product.{setting.partition('=')[0]}: found ")
