"""Put one entry into a catalog's YAML file and leave every other line as it is.

The entry's lines are found by the YAML parser and replaced in the text. Writing the whole catalog
anew with ruamel.yaml would rewrap flow collections and quoted texts of other entries, and would
write texts such as `no` or `12:30` without the quotes that Intake's YAML 1.1 needs.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import yaml

from pipeline import files
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.files import Json

HEADER = (
    "# Intake v1, written by `soilweave doctor`; edit it as you like.\nmetadata:\n  version: 1\n"
)
_NAME = re.compile(r"[A-Za-z_][\w-]*")


def parts(target: str) -> tuple[str, str]:
    """Catalog and name of `CATALOG.yaml:NAME`.

    Raises:
      ConfigError: it is no such thing.
    """
    catalog, _, name = target.rpartition(":")
    if not catalog.endswith((".yaml", ".yml")) or not _NAME.fullmatch(name):
        raise ConfigError(f"--write {target}", "expected CATALOG.yaml:NAME, such as my.yaml:mine")
    return catalog, name


def put(catalog: str, name: str, entry: Json) -> str:
    """Add an entry to a catalog, or replace the one of that name; a new catalog where none is.

    Returns:
      What was done, in words.

    Raises:
      ConfigError: the catalog is of a form that cannot be edited as text.
    """
    try:
        data = files.read_bytes(catalog)
    except FileNotFoundError:
        data = b""
    before = data.decode()
    before += "\n" if before and not before.endswith("\n") else ""
    try:
        held = (yaml.safe_load(before) or {}).get("sources") or {}
        after = _edited(before or HEADER, name, entry)
        found = yaml.safe_load(after)["sources"]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"cannot be edited: {' '.join(str(error).split())}"
        raise ConfigError(catalog, told, remedy="name another file, or a new one") from error
    if found != held | {name: entry}:
        told = f"entry {name} cannot be put there without changing another (an anchor in it?)"
        raise ConfigError(catalog, told, remedy="name another file, or a new one")
    files.write_bytes(catalog, after.encode())
    return "replaced" if name in held else "added" if before else "written"


def _edited(text: str, name: str, entry: Json) -> str:
    """Return a catalog's text with the entry in the place of its own lines, or after the last one.

    Comments and empty lines below an entry belong to what follows it.

    Raises:
      ValueError: the entries do not start on lines of their own.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    sources = {key.value: value for key, value in root.value}.get("sources") if root else None
    if sources is None or not sources.value or sources.tag == "tag:yaml.org,2002:null":
        without = re.sub(r"^sources:.*\n", "", text, flags=re.MULTILINE)
        return without + "sources:\n" + _block(name, entry, 2)
    if sources.flow_style:
        raise ValueError("its `sources` are not one entry a line")
    lines, keys = text.splitlines(keepends=True), [key for key, _ in sources.value]
    starts = [key.start_mark.line for key in keys]
    ends = [*starts[1:], sources.end_mark.line]
    at = next((i for i, key in enumerate(keys) if key.value == name), None)
    end = ends[-1 if at is None else at]
    while re.match(r"\s*(#|$)", lines[end - 1]):
        end -= 1
    begin = end if at is None else starts[at]
    block = _block(name, entry, keys[0].start_mark.column)
    return "".join([*lines[:begin], block, *lines[end:]])


def _block(name: str, entry: Json, indent: int) -> str:
    text = yaml.safe_dump({name: entry}, sort_keys=False, allow_unicode=True, width=96)
    return textwrap.indent(text, " " * indent)
