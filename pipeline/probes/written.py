"""An entry put into a catalog's YAML, the rest of its text left as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

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
        root = yaml.compose(before, Loader=yaml.SafeLoader)
        held = (yaml.safe_load(before) or {}).get("sources") or {}
        after = _edited(before or HEADER, root if before else None, name, entry)
        found = yaml.safe_load(after)["sources"]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"cannot be edited: {' '.join(str(error).split())}"
        raise ConfigError(catalog, told, remedy="name another file, or a new one") from error
    if found != held | {name: entry}:
        told = f"entry {name} cannot be put there without changing another (an anchor in it?)"
        raise ConfigError(catalog, told, remedy="name another file, or a new one")
    files.write_bytes(catalog, after.encode())
    return "replaced" if name in held else "added" if before else "written"


def _edited(text: str, root: Any, name: str, entry: Json) -> str:
    """The text with the entry in it.

    Raises:
      ValueError: its `sources` are in a form that has no lines of their own.
    """
    lines = text.splitlines()
    sources = dict(_pairs(root)).get("sources") if root else None
    if sources is None:
        return "\n".join([*lines, "sources:", *_lines(name, entry, 2), ""])
    pairs = [(key, value) for key, value in sources[1].value] if _is_block(sources[1]) else []
    if not pairs:
        if not _is_empty(sources[1]):
            raise ValueError("its `sources` are not one entry a line")
        at = sources[0].start_mark.line
        lines[at : sources[1].end_mark.line + 1] = ["sources:", *_lines(name, entry, 2)]
        return "\n".join([*lines, ""])
    indent = pairs[0][0].start_mark.column
    begin = end = _end(lines, pairs[-1][1])
    for key, value in pairs:
        if key.value == name:
            begin, end = key.start_mark.line, _end(lines, value)
    lines[begin:end] = _lines(name, entry, indent)
    return "\n".join([*lines, ""])


def _pairs(root: Any) -> list[tuple[str, tuple[Any, Any]]]:
    return [(key.value, (key, value)) for key, value in root.value]


def _is_block(node: Any) -> bool:
    return isinstance(node, yaml.MappingNode) and not node.flow_style and bool(node.value)


def _is_empty(node: Any) -> bool:
    return not node.value or node.tag == "tag:yaml.org,2002:null"


def _end(lines: list[str], node: Any) -> int:
    """Line after the last one of a value; comments and empty lines below it are not its own."""
    block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    end: int = node.end_mark.line + (0 if block or not node.end_mark.column else 1)
    while end > node.start_mark.line + 1 and re.match(r"\s*(#|$)", lines[end - 1]):
        end -= 1
    return end


def _lines(name: str, entry: Json, indent: int) -> list[str]:
    text = yaml.safe_dump({name: entry}, sort_keys=False, allow_unicode=True, width=96)
    return [" " * indent + line for line in text.splitlines()]
