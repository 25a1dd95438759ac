"""Settings that have been renamed, which may still be given by their old names.

Experiment files, recipes, `--set` and the `experiment.yaml` of a workspace are read with either
name, and written with the new one. Artefacts record the settings they were made with under the
names of their time; `recorded_name` lets the two be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection


# Old name -> new name, of a setting or of a whole section. Only the last part of a name changes:
# a setting stays in its section.
SETTINGS = {
    "chosen_on": "tuned_on",
    "planet.without": "planet.omit_errors",
    "qc.several": "qc.duplicate_sites",
}


def with_new_names(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings as read from YAML, with the new name of each that has been renamed.

    Raises:
      ValueError: settings are given by both names; all of them are listed.
    """
    problems: list[str] = []
    made = _with_new_names(tree, "", problems)
    if problems:
        raise ValueError("; ".join(problems))
    return made


def _with_new_names(tree: dict[str, Any], section: str, problems: list[str]) -> dict[str, Any]:
    made = {}
    for key, value in tree.items():
        old = f"{section}{key}"
        new = SETTINGS.get(old, old)
        name = new.rpartition(".")[2] if new != old else key
        if new != old and name in tree:
            problems.append(f"{old} and {new} are the same setting: give only {new}")
        is_section = isinstance(value, dict)
        made[name] = _with_new_names(value, f"{new}.", problems) if is_section else value
    return made


def with_first_names(tree: dict[str, Any], section: str = "") -> dict[str, Any]:
    """Settings with the names that they had at first, so that their digest outlives a renaming."""
    first = {new: old.rpartition(".")[2] for old, new in SETTINGS.items()}
    made = {}
    for key, value in tree.items():
        name = f"{section}{key}"
        inside = with_first_names(value, f"{name}.") if isinstance(value, dict) else value
        made[first.get(name, key)] = inside
    return made


def recorded_name(name: str, recorded: Collection[str]) -> str:
    """The name that a setting has among those of a record: the old one, if the record has that."""
    names = (_replaced(name, new, old) for old, new in SETTINGS.items())
    return next((old for old in names if old != name and old in recorded), name)


def new_name(name: str) -> str:
    """The name of a setting, given by its old name or by its new one."""
    for old, new in SETTINGS.items():
        name = _replaced(name, old, new)
    return name


def _replaced(name: str, before: str, after: str) -> str:
    """A name with another beginning, where it is that of the setting or section `before`."""
    is_in = name == before or name.startswith(f"{before}.")
    return after + name.removeprefix(before) if is_in else name
