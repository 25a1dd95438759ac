"""Models that come with soilweave, which `models: NAME` and `--models NAME` name.

Each is a folder in presets/models, in the form that an experiment has in a workspace, but only with
what prediction and scoring need: experiment.yaml, folds.parquet, models/, offsets.json, and the
model card, card.json and card.md. `make weights` makes it.
"""

from __future__ import annotations

import difflib
import importlib.resources
import os

from pipeline import files
from pipeline.errors import ConfigError
from pipeline.experiment import load

DEFAULT = "scan"  # scores a table of probes if nothing else is named
PUBLIC = {"scan": "scan-public"}  # presets of the same data, read from public servers
FORCING = {"scan": ("2015-04-01", "2018-03-31")}  # first and last day of the forcing of the cells
FOLDER = "pipeline/experiment/presets/models"  # from the top of the sources
DATA_VARIABLE = "SOILWEAVE_DATA"


def list_names() -> list[str]:
    """List the names of the shipped models; a job that uses none has none."""
    return load.list_presets("models")


def home(name: str) -> str:
    """Return the folder of shipped models."""
    return str(importlib.resources.files("pipeline.experiment") / "presets" / "models" / name)


def title(name: str) -> str:
    """Return one line on shipped models, from their card."""
    card = files.read_json(files.join(home(name), "card.json")) or {}
    return str(card.get("title", ""))


def models_url(models: str) -> str:
    """Return the absolute URL of the models/ folder that a setting `models` names.

    As for experiments and recipes, a word without a slash is the name of a preset; `./NAME` is a
    folder of that name.

    Raises:
      ConfigError: If a word names neither shipped models nor a folder.
    """
    if models in list_names():
        return files.join(home(models), "models")
    url = files.make_absolute(models).rstrip("/")
    if "/" in models or files.exists(url):
        return url
    close = difflib.get_close_matches(models, list_names(), 1)
    problem = "no models of this name come with soilweave, and there is no such folder"
    hint = f"did you mean '{close[0]}'? " if close else ""
    hint += f"names: {', '.join(list_names())}; or give the URL of a models/ folder"
    raise ConfigError(f"models '{models}'", problem, remedy=hint)


def url_here(models: str | None, url: str) -> str:
    """Return where this machine has the models that another one has at a URL.

    Args:
      models: The setting `models`. What comes with soilweave is elsewhere on each machine.
      url: The URL of the models on the other machine.
    """
    return url if models is None or models not in list_names() else models_url(models)


def experiment_of_inputs(name: str) -> tuple[str, list[str]]:
    """Return the preset, and settings as `key=value`, that give any place the inputs of its cell.

    The preset reads the files in SOILWEAVE_DATA, if that is set, and public servers otherwise.

    Args:
      name: The name of shipped models.
    """
    preset = name if os.environ.get(DATA_VARIABLE) else PUBLIC[name]
    first, last = FORCING[name]
    # The models have learnt from sites with inputs of their own, which other places do not have.
    settings = [f"models={name}", "inputs_from=cell", "sources.insitu=[]"]
    return preset, [*settings, f"period=[{first}, {last}]"]
