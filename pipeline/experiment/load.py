"""Load an experiment from a preset, a path or a URL, and merge its recipe and `--set` into it.

Settings of `--set` replace those of the experiment, which replace those of the recipe.
"""

from __future__ import annotations

import difflib
import importlib.resources
import types
import typing
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from model.recipe import Recipe
from pipeline import files, safe_yaml
from pipeline.errors import ConfigError, redact_urls
from pipeline.experiment import renamed
from pipeline.experiment.config import Experiment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


Settings = dict[str, Any]

OUT_OF_RANGE_ERRORS = (
    "finite_number",
    "greater_than",
    "greater_than_equal",
    "int_parsing_size",
    "less_than",
    "less_than_equal",
)

LIMIT_WORDS = {
    "exclusiveMinimum": "more than",
    "minimum": "at least",
    "exclusiveMaximum": "less than",
    "maximum": "at most",
}


def load_experiment(
    name: str, settings: Sequence[str] = (), rename: str | None = None
) -> Experiment:
    """Load an experiment.

    Args:
      name: Name of a preset, path or URL.
      settings: `key=value` of `--set`, with dotted keys and values in YAML.
      rename: Another name for the experiment and its folder in the workspace; None for its own.

    Raises:
      ConfigError: If a file cannot be read, or settings are not valid; it lists all problems.
    """
    tree = _with_new_names(f"experiment {name}", read_settings("experiments", name))
    chosen = _with_new_names("--set", _parse_set(settings))
    recipe_name = str(chosen.get("recipe", tree.get("recipe", "default")))
    recipe = _with_new_names(f"recipe {recipe_name}", read_settings("recipes", recipe_name))
    recipe.pop("title", None)
    sections = [*Recipe.model_fields, "n_seeds", "tuned_on"]
    unknown = [f"unknown section '{key}'" for key in recipe if key not in sections]
    if unknown:
        hint = f"the sections of a recipe are {', '.join(sections)}"
        raise ConfigError(f"recipe {recipe_name}", *unknown, remedy=hint)
    merged = _merge(recipe, tree, chosen, {"recipe": recipe_name})
    if rename:
        merged["name"] = rename
    _keep_updates_or_epochs(merged, tree, chosen)
    try:
        experiment = Experiment.model_validate(merged)
    except ValidationError as error:
        problems = [_explain_error(item) for item in error.errors()]
        raise ConfigError(f"experiment {name}", *problems) from error
    _check_entries(name, experiment)
    return experiment


def _check_entries(name: str, experiment: Experiment) -> None:
    """Check that no entry is named by a URL with secrets, since entries name data in artefacts.

    Raises:
      ConfigError: If one is.
    """
    sources = experiment.sources
    others = (sources.satellite, sources.truth)
    entries = (*sources.forcing, *sources.static, *sources.insitu, *experiment.baselines, *others)
    secret = [redact_urls(entry) for entry in entries if entry and redact_urls(entry) != entry]
    if secret:
        problems = [f"entry {entry}: its URL has a user, password or query" for entry in secret]
        hint = "name that catalog as sources.catalog, or use a plain URL or a file"
        raise ConfigError(f"experiment {name}", *problems, remedy=hint)


def _with_new_names(where: str, tree: Settings) -> Settings:
    """Replace old names of settings by the new ones.

    Args:
      where: The file, or `--set`, for messages.
      tree: Its settings.

    Raises:
      ConfigError: If a setting is given by both names.
    """
    try:
        return renamed.with_new_names(tree)
    except ValueError as error:
        raise ConfigError(where, *str(error).split("; ")) from error


def read_settings(kind: str, name: str) -> Settings:
    """Read the YAML of an experiment or a recipe.

    Args:
      kind: `experiments` or `recipes`.
      name: Name of a preset, path or URL.

    Raises:
      ConfigError: If there is no such file, or it does not contain keys and values.
    """
    looks_like_path = name.endswith((".yaml", ".yml")) or "://" in name or "/" in name
    preset = importlib.resources.files("pipeline.experiment") / "presets" / kind / f"{name}.yaml"
    if not looks_like_path and preset.is_file():
        return _parse_yaml(name, preset.read_text())
    if looks_like_path and files.exists(name):
        try:
            return _parse_yaml(name, files.read_limited(name, safe_yaml.MAX_BYTES).decode())
        except UnicodeDecodeError as error:
            raise ConfigError(name, f"is not a text file: {error}") from error
    close = difflib.get_close_matches(name, list_presets(kind), 1)
    suggestion = f"; did you mean '{close[0]}'?" if close else ""
    hint = "presets: " + ", ".join(list_presets(kind))
    raise ConfigError(f"{kind.rstrip('s')} '{name}'", f"not found{suggestion}", remedy=hint)


def list_presets(kind: str) -> list[str]:
    """List the names of the presets of a kind, `experiments`, `recipes` or `models`."""
    folder = importlib.resources.files("pipeline.experiment") / "presets" / kind
    items = folder.iterdir() if folder.is_dir() else ()
    return sorted(item.name.removesuffix(".yaml") for item in items)


def settings_for_mapping(models: str | None, bbox: str | None, period: str | None) -> list[str]:
    """Return the settings, as `key=value`, that make maps with the models of another experiment.

    Args:
      models: URL of the models; None for those of the experiment itself.
      bbox: `west,south,east,north` in degrees; None for the experiment's domain.
      period: `first..last` day; None for the experiment's period.

    Raises:
      ConfigError: If an argument is malformed, or bbox or period is given without models.
    """
    if models is None:
        if bbox or period:
            problem = "another region or period needs models that are trained already"
            hint = "add --models URL, or set domain and period for every command with --set"
            raise ConfigError("--bbox, --period", problem, remedy=hint)
        return []
    settings = [f"models={models}", "sources.satellite=null", "sources.insitu=[]"]
    return settings + settings_for_region(bbox, period)


def settings_for_region(bbox: str | None, period: str | None) -> list[str]:
    """Return the settings, as `key=value`, of a region and a period.

    Args:
      bbox: `west,south,east,north` in degrees; None for no setting.
      period: `first..last` day; None for no setting.

    Raises:
      ConfigError: If an argument is malformed.
    """
    settings = []
    if bbox:
        sides = ("west_degrees", "south_degrees", "east_degrees", "north_degrees")
        edges = bbox.split(",")
        if len(edges) != len(sides):
            raise ConfigError(f"--bbox {bbox}", "expected west,south,east,north in degrees")
        settings += [f"domain.{s}={edge}" for s, edge in zip(sides, edges, strict=True)]
    if period:
        days = [day.strip() for day in period.split("..")]
        if len(days) != 2 or not all(map(_is_day, days)):
            accepted = "expected first..last, such as 2018-01-01..2018-06-30"
            raise ConfigError(f"--period {period}", accepted)
        keys = ("period", "train_period", "test_period")
        settings += [f"{key}=[{days[0]}, {days[1]}]" for key in keys]
    return settings


def _is_day(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def file_schema() -> Settings:
    """Return the JSON schema of experiment files, in which what recipes give may be left out."""
    schema = Experiment.model_json_schema()
    given = {*Recipe.model_fields, "n_seeds"}
    schema["required"] = [key for key in schema["required"] if key not in given]
    for key in given & schema["properties"].keys():
        for section in _branches(schema["properties"][key], schema):
            section.pop("required", None)
    return schema


def _parse_yaml(name: str, text: str) -> Settings:
    """Parse a YAML file.

    Raises:
      ConfigError: If it is not YAML, or does not contain keys and values.
    """
    tree = safe_yaml.load(text, name)
    if not isinstance(tree, dict):
        raise ConfigError(name, f"contains {type(tree).__name__}, expected keys and values")
    return tree


def _parse_set(settings: Iterable[str]) -> Settings:
    """Parse `key=value` settings with dotted keys.

    Raises:
      ConfigError: If a setting is malformed, or a section was already set to a value.
    """
    tree: Settings = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {setting}", "expected key=value, such as train.updates=50")
        branch = tree
        *path, leaf = key.split(".")
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"--set {setting}", f"{part} is already set to a value")
        branch[leaf] = safe_yaml.load(value, f"--set {setting}")
    return tree


def _merge(*trees: Settings) -> Settings:
    """Merge settings key by key at every depth; later trees replace values of earlier ones."""
    result: Settings = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = _merge(result[key], value) if both else value
    return result


def _keep_updates_or_epochs(merged: Settings, tree: Settings, chosen: Settings) -> None:
    """Remove `train.epochs` if an experiment or `--set` gives `train.updates`, and vice versa.

    Args:
      merged: All settings merged; changed in place.
      tree: Settings of the experiment.
      chosen: Settings of `--set`.
    """
    for layer in (tree, chosen):
        given = layer.get("train")
        if not isinstance(given, dict):
            continue
        for key, other in (("updates", "epochs"), ("epochs", "updates")):
            if given.get(key) is not None and given.get(other) is None:
                merged["train"][key] = given[key]
                merged["train"][other] = None


def _explain_error(item: Any) -> str:
    """Return the message for one error of pydantic, with a suggestion for unknown keys."""
    path = [str(part) for part in item["loc"]]
    where = ".".join(path) or "experiment"
    if item["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        close = difflib.get_close_matches(path[-1], known, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"accepted: {', '.join(known)}"
        return f"unknown key '{where}'; {hint}"
    if item["type"] == "missing":
        return f"{where} is missing"
    if item["type"] in OUT_OF_RANGE_ERRORS and (accepted := _accepted_range(path)):
        return f"{where}: found {item['input']!r}; accepted: {accepted}"
    value = "" if isinstance(item["input"], dict) else f"found {item['input']!r}; "
    if path[-1:] and path[-1].endswith("period") and item["type"] == "tuple_type":
        return (
            f"{where}: {value}expected two days, such as --set '{where}=[2016-01-01, 2016-12-31]'"
        )
    limits = _accepted_range(path) if item["type"].startswith(("int_", "float_")) else ""
    accepted = f"; accepted: {limits}" if limits else ""
    return f"{where}: {value}{item['msg'].removeprefix('Value error, ')}{accepted}"


def _accepted_range(path: Sequence[str]) -> str:
    """Describe the range of a numeric setting; "" if it has none.

    Args:
      path: Keys, and indices of lists, that lead to the setting.
    """
    schema = Experiment.model_json_schema()
    node: Settings = schema
    for part in path:
        branches = _branches(node, schema)
        node = next((child for b in branches if (child := _child_node(b, part)) is not None), {})
    limits = {
        k: v for branch in _branches(node, schema) for k, v in branch.items() if k in LIMIT_WORDS
    }
    if "exclusiveMinimum" in limits:
        limits.pop("minimum", None)
    figures = {k: f"{v:,}" if isinstance(v, int) else f"{v:g}" for k, v in limits.items()}
    return " and ".join(f"{LIMIT_WORDS[k]} {figures[k]}" for k in LIMIT_WORDS if k in limits)


def _branches(node: Settings, schema: Settings) -> list[Settings]:
    """Return the alternatives of a node of a JSON schema, with references resolved."""
    if "$ref" in node:
        return _branches(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    inner = [branch for part in node.get("anyOf", ()) for branch in _branches(part, schema)]
    return inner or [node]


def _child_node(node: Settings, part: str) -> Settings | None:
    """Return the node of a key, or of an item of a list, in a JSON schema; None if absent."""
    if part in node.get("properties", {}):
        return dict(node["properties"][part])
    if part.isdecimal() and "prefixItems" in node:
        return dict(node["prefixItems"][int(part)])
    child = node.get("items") if part.isdecimal() else node.get("additionalProperties")
    return child if isinstance(child, dict) else None


def _known_keys(path: Sequence[str]) -> list[str]:
    """List the keys that are accepted in a section."""
    kind: Any = Experiment
    for part in path:
        if _is_model(kind):
            field = kind.model_fields.get(part)
            kind = _type_without_none(field.annotation) if field else None
        else:  # an item of a list or of a mapping
            kind = next((arg for arg in typing.get_args(kind) if _is_model(arg)), None)
    return list(kind.model_fields) if _is_model(kind) else []


def _type_without_none(kind: Any) -> Any:
    """Return the type of a setting without None."""
    if typing.get_origin(kind) is not types.UnionType:
        return kind
    return next(arg for arg in typing.get_args(kind) if arg is not types.NoneType)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
