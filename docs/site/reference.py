"""The pages of reference that are made from the code, each as Markdown."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from typer.cli import get_docs_for_click
from typer.main import get_command

from pipeline import api
from pipeline.cli import app
from pipeline.experiment import load
from pipeline.experiment.variables import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
Json = dict[str, Any]


def command_line() -> str:
    """Every verb with its arguments and options, as `soilweave VERB --help` prints them."""
    command = get_command(app)
    context = click.Context(command, info_name="soilweave")
    text = get_docs_for_click(obj=command, ctx=context, name="soilweave")
    return text.partition("\n")[2].replace("```console", "```text")


def settings() -> str:
    """Every setting of an experiment file, section by section."""
    schema = load.file_schema()
    plain, sections = [], []
    for name, described in schema["properties"].items():
        section = _section(described, schema)
        if section is None:
            plain.append(_setting(name, described, schema))
        else:
            sections += [*_describe_section(name, described, section, schema)]
    return "\n".join(["## At the top of the file", "", *plain, "", *sections])


def _describe_section(name: str, described: Json, section: Json, schema: Json) -> Iterator[str]:
    """Return the lines of a section, and of those within it."""
    yield from (f"## `{name}:`", "")
    text = described.get("description") or section.get("description", "")
    yield from (" ".join(text.split()), "")
    for key, each in section["properties"].items():
        yield _setting(f"{name}.{key}", each, schema)
        inner = _section(each, schema)
        for name_within, within in (inner or {"properties": {}})["properties"].items():
            yield "  " + _setting(name_within, within, schema)
    yield ""


def _branches(described: Json, schema: Json) -> list[Json]:
    """Return what a setting may be: itself or the branches of a union, without references."""
    found = []
    for branch in described.get("anyOf") or described.get("oneOf") or [described]:
        name = branch.get("$ref", "").rpartition("/")[2]
        found.append(schema["$defs"][name] if name else branch)
    return found


def _section(described: Json, schema: Json) -> Json | None:
    """Return the schema of a section, or of each of a list; None for a setting with a value."""
    for branch in _branches(described, schema):
        items = branch.get("items")
        for each in [branch, *(_branches(items, schema) if isinstance(items, dict) else [])]:
            if "properties" in each:
                return each
    return None


def _setting(name: str, described: Json, schema: Json) -> str:
    """Return a setting as an item of a list: its name, what it may be, its default, its meaning."""
    facts = [_accepted(described, schema)]
    if "default" in described:
        default = described["default"]
        given = None if default in (None, [], {}) else json.dumps(default)
        facts.append(f"default `{given}`" if given else "none by default")
    meaning = " ".join(described.get("description", "").split())
    return f"- **`{name}`** ({', '.join(filter(None, facts))}): {meaning}".rstrip(": ")


def _accepted(described: Json, schema: Json) -> str:
    """Return in words what a setting accepts."""
    words = []
    for branch in _branches(described, schema):
        if "const" in branch:
            words.append(f"`{branch['const']}`")
        elif "enum" in branch:
            words.append(" or ".join(f"`{value}`" for value in branch["enum"]))
        elif branch.get("type") == "array":
            items = branch.get("items")
            of = _accepted(items, schema) if isinstance(items, dict) else ""
            words.append(f"list of {of}" if of else "list")
        elif branch.get("type") == "object":
            words.append("section")
        elif branch.get("type") not in (None, "null"):
            words.append(branch.get("format", branch["type"]) + _limits(branch))
    return " or ".join(dict.fromkeys(words))


def _limits(branch: Json) -> str:
    """Return the limits of a number in words; an exclusive one says more than the other."""
    text = ""
    for word, key, plain, plain_key in (
        ("above", "exclusiveMinimum", "from", "minimum"),
        ("below", "exclusiveMaximum", "to", "maximum"),
    ):
        if key in branch:
            text += f" {word} {branch[key]:.12g}"
        elif plain_key in branch:
            text += f" {plain} {branch[plain_key]:.12g}"
    return text


def variables() -> str:
    """Every variable that is known without a declaration."""
    lines = ["| name | use | units | valid range | |", "|---|---|---|---|---|"]
    for name, each in VARIABLES.items():
        valid = f"{each.minimum:g} to {each.maximum:g}"
        lines.append(f"| `{name}` | {each.kind} | {each.units} | {valid} | {each.long_name} |")
    return "\n".join(lines)


def catalog_entries() -> str:
    """Every entry of the shipped catalogs."""
    lines: list[str] = []
    for path in sorted((ROOT / "catalogs").glob("*.yaml")):
        entries = yaml.safe_load(path.read_text())["sources"]
        if path.name != "main.yaml":  # it nests the others
            lines += [f"## {path.name}", ""]
            for name, entry in entries.items():
                lines += [f"### `{name}`", "", " ".join(entry["description"].split()), ""]
                lines += [*_facts(entry), ""]
    return "\n".join(lines)


def _facts(entry: Json) -> Iterator[str]:
    """Return the facts of a catalog entry as items of a list."""
    about = entry.get("metadata") or {}
    yield f"- driver: `{entry['driver']}`"
    mapping = (entry.get("args") or {}).get("mapping")
    if isinstance(mapping, dict):
        yield "- variables: " + ", ".join(f"`{name}`" for name in mapping)
    for key in ("support", "period", "native_grid", "license", "doi", "auth", "verified"):
        if key in about:
            known = {True: "yes", False: "no"}.get(about[key], about[key])
            value = str(known).replace("<", "&lt;")
            yield f"- {key.replace('_', ' ')}: {value}"


def python_api() -> str:
    """The functions of `pipeline.api`, from their docstrings."""
    lines = ["```{eval-rst}", ".. currentmodule:: pipeline.api", ""]
    for name in api.__all__:
        assert inspect.isfunction(getattr(api, name))
        lines += [f".. autofunction:: {name}", ""]
    return "\n".join([*lines, "```"])


PAGES: dict[str, Callable[[], str]] = {
    "command-line": command_line,
    "settings": settings,
    "variables": variables,
    "catalog-entries": catalog_entries,
    "python-api": python_api,
}
