"""Runs of large planets, made by commands of their own; their rows where they have been run."""

from __future__ import annotations

import json

from bench.rows import Row

FILES = ("conus.json", "m36.json")


def rows(context):
    """The rows that those files hold."""
    for name in FILES:
        path = context.folder / name
        if path.exists():
            yield from (Row.from_dict(row) for row in json.loads(path.read_text())["rows"])
