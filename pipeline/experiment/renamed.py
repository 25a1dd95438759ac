"""Old names of settings, which are still accepted.

Experiment files, recipes, `--set` and the `experiment.yaml` of a workspace may contain either name;
the new one is written. The record of an artefact contains the names that were used when it was
made; `recorded_name` finds them, so that old and new settings can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection


# Old and new name of a setting or a section. Only the last part of the name differs, because a
# setting stays in its section.
RENAMED_SETTINGS = {
    "chosen_on": "tuned_on",
    "compute.threads_per_worker": "compute.cpus_per_worker",
    "planet.without": "planet.omit_errors",
    "qc.several": "qc.duplicate_sites",
}


def with_new_names(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace the old names of settings, as read from YAML, by the new ones.

    Raises:
      ValueError: If settings are given by both names; it lists all of them.
    """
    problems: list[str] = []
    converted = _with_new_names(tree, "", problems)
    if problems:
        raise ValueError("; ".join(problems))
    return converted


def _with_new_names(tree: dict[str, Any], section: str, problems: list[str]) -> dict[str, Any]:
    """Convert one section, whose dotted name ends with a dot, and append to the problems."""
    converted = {}
    for key, value in tree.items():
        old = f"{section}{key}"
        new = RENAMED_SETTINGS.get(old, old)
        name = new.rpartition(".")[2] if new != old else key
        if new != old and name in tree:
            problems.append(f"{old} and {new} are the same setting: give only {new}")
        is_section = isinstance(value, dict)
        converted[name] = _with_new_names(value, f"{new}.", problems) if is_section else value
    return converted


def with_original_names(tree: dict[str, Any], section: str = "") -> dict[str, Any]:
    """Replace the new names of settings by the first ones, for digests that must not change."""
    first_names = {new: old.rpartition(".")[2] for old, new in RENAMED_SETTINGS.items()}
    converted = {}
    for key, value in tree.items():
        name = f"{section}{key}"
        nested = with_original_names(value, f"{name}.") if isinstance(value, dict) else value
        converted[first_names.get(name, key)] = nested
    return converted


def recorded_name(name: str, recorded: Collection[str]) -> str:
    """Return the name of a setting in a record: the old one if the record contains it."""
    names = (_replace_prefix(name, new, old) for old, new in RENAMED_SETTINGS.items())
    return next((old for old in names if old != name and old in recorded), name)


def new_name(name: str) -> str:
    """Return the new name of a setting, given its old or its new name."""
    for old, new in RENAMED_SETTINGS.items():
        name = _replace_prefix(name, old, new)
    return name


def _replace_prefix(name: str, before: str, after: str) -> str:
    """Replace `before` in a name if it is the whole name or the section of the name."""
    matches = name == before or name.startswith(f"{before}.")
    return after + name.removeprefix(before) if matches else name
