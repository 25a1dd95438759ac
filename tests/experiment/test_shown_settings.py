"""Secrets in an experiment's own URLs stand in none of its files, and in nothing that is shown."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import errors
from pipeline.catalog import entries
from pipeline.cli import run_stages
from pipeline.errors import ConfigError
from pipeline.experiment import config, load
from pipeline.storage import schema
from pipeline.storage.artefacts import Workspace
from pipeline.tracking import contents

SECRET = "s3cr3t-value"
SETTINGS = (
    f"sources.catalog=https://me:{SECRET}@host/c.yaml",
    f"sources.staged=https://host/copies?X-Amz-Signature={SECRET}&X-Amz-Date=1",
    f"models=https://host/models?sv=1&sig={SECRET}",
    f"cube='https://host/cube.zarr#access_token={SECRET}'",
    f"folds.by=https://me:{SECRET}@host/r.geojson",
    "folds.kind=region",
)


def test_files_have_no_secrets_and_workers_get_all_of_them(snow, tmp_path):
    experiment = load.load_experiment(str(snow), SETTINGS)
    assert experiment.model_dump_json().count(SECRET) == 5
    workspace = Workspace(str(tmp_path / "w"))
    workspace.describe(experiment)
    text = Path(workspace.url("experiment.yaml")).read_text()
    assert SECRET not in text
    assert "https://host/c.yaml" in text
    described = workspace.described()
    assert described.sources.staged == "https://host/copies"
    assert schema.changed_settings(described, experiment) == {}
    for artefact in schema.SECTIONS:
        assert SECRET not in json.dumps(schema.identity(experiment, artefact))


def test_settings_without_secrets_are_shown_as_they_are(snow):
    for name in (str(snow), *load.list_presets("experiments")):
        experiment = load.load_experiment(name)
        assert config.shown_settings(experiment) == experiment.model_dump(mode="json")


def test_mlflow_gets_the_same_settings_whatever_the_secrets(snow, tmp_path):
    digests = []
    for secret in (SECRET, "another-one"):
        settings = [f"sources.catalog=https://me:{secret}@host/c.yaml"]
        experiment = load.load_experiment(str(snow), settings)
        found = contents.loggable_digests(experiment, Workspace(str(tmp_path / "w")))
        digests.append(found["logged"]["experiment"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("role", ["forcing", "static", "satellite", "insitu"])
def test_an_entry_is_not_named_by_a_url_with_secrets(snow, role):
    named = f"https://me:{SECRET}@host/c.yaml:mine"
    setting = f"sources.{role}={named}"
    with pytest.raises(ConfigError, match="its URL has a user") as caught:
        load.load_experiment(str(snow), [setting])
    assert SECRET not in str(caught.value)


def test_the_data_do_not_say_the_password_of_their_catalog():
    url = f"https://me:{SECRET}@host/c.yaml"
    spec = {"driver": "zarr.ZarrSource", "args": {"urlpath": "{{CATALOG_DIR}}/a.zarr"}}
    driver = entries.make_driver(entries.CatalogEntry(url, "a", spec), {})
    assert driver.urlpath == f"https://me:{SECRET}@host/a.zarr"
    assert driver.metadata["catalog_dir"] == "https://host/"


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{SECRET}@host/a",
        f"https://me:p@{SECRET}@host/a",
        f"see https://host/a?token={SECRET}, or",
        f"https://host/a#access_token={SECRET}&x=1",
        f"https://host/a?x=1#access_token={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"Authorization: Basic {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
    ],
)
def test_secrets_are_hidden_in_errors_and_in_what_is_printed(text, capsys):
    assert SECRET not in str(ConfigError("place", text))
    run_stages.out.print(text, soft_wrap=True)
    assert SECRET not in capsys.readouterr().out


def test_plain_texts_stay():
    for text in ("https://host/a#section", "s3://bucket/a/*.nc", "me@host", "a bearer of news"):
        assert errors.redact_secrets(text) == text
    assert yaml.safe_load(yaml.safe_dump(errors.redact_tree({"a": [1, None, "x"]})))["a"][0] == 1


@pytest.mark.parametrize("text", ["A", "a://", "a://b#", "@a://"])
def test_hostile_texts_take_no_more_time_than_others(text):
    """As of a table with a name of a megabyte; before, it took hours."""
    code = "import sys; from pipeline import errors; errors.redact_secrets(sys.argv[1] * 300_000)"
    subprocess.run([sys.executable, "-c", code, text], timeout=60, check=True)
