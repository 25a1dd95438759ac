"""Put one entry into a catalog's YAML file and leave every other line as it is.

The entry's lines are found by the YAML parser and replaced in the text. Writing the whole catalog
anew with ruamel.yaml would rewrap flow collections and quoted texts of other entries, and would
write texts such as `no` or `12:30` without the quotes that Intake's YAML 1.1 needs.

Write a catalog entry for a table of probes.
"""

from __future__ import annotations

import os
import re
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import yaml

from pipeline import files, safe_yaml
from pipeline.catalog import templates
from pipeline.errors import ConfigError
from pipeline.probes.columns import TARGET
from pipeline.sources.shared import http_errors
from pipeline.sources.table import column_names

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.files import Json
    from pipeline.probes.examine import ProbeTable


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
        held = (safe_yaml.load(before, catalog) or {}).get("sources") or {}
        after = _edited(before or HEADER, name, entry)
        found = yaml.safe_load(after)["sources"]
    except ConfigError as error:
        hint = "name another file, or a new one"
        raise ConfigError(catalog, *error.problems, remedy=hint) from error
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


DEFAULT_LICENSE = "own data, not published"


def write_probe_entry(
    table: ProbeTable, data: xr.Dataset, catalog: str, name: str, license_: str
) -> str:
    """Write an entry for a table into a catalog.

    Args:
      table: what is known of the table.
      data: its daily values.
      catalog: file of the catalog.
      name: name of the entry.
      license_: licence of the data.

    Returns:
      A sentence that says what was written.

    Raises:
      ConfigError: If the catalog cannot be edited, or the URL of the table contains credentials.
    """
    if "://" in table.url and http_errors.format_url(table.url) != table.url:
        problem = (
            "the URL contains a user name, a password or a query; credentials are not allowed in a "
            "catalog"
        )
        raise ConfigError(
            http_errors.format_url(table.url), problem, remedy="give a plain URL, or a file"
        )
    where = _from_catalog(table.url, catalog)
    action = put(catalog, name, _make_entry(table, data, license_, where))
    note = (
        ""
        if license_ != DEFAULT_LICENSE
        else f" (license: {DEFAULT_LICENSE}; --set license=... changes it)"
    )
    return (
        f"{name} {action} in {catalog}{note}; an experiment names it as "
        f"sources.insitu=[{catalog}:{name}]"
    )


def _from_catalog(url: str, catalog: str) -> str:
    """Return the path of a table from its catalog on, so that both can be moved together."""
    if "://" in url or "://" in catalog:
        return url
    folder = templates.catalog_folder(catalog)
    return f"{{{{CATALOG_DIR}}}}/{os.path.relpath(url, folder)}"


def _make_entry(table: ProbeTable, data: xr.Dataset, license_: str, where: str) -> Json:
    """Return the complete entry of a table, which is read from `where`."""
    lat, lon = data.lat.values, data.lon.values
    days = data.time.values[np.isfinite(data[TARGET].values).any(1)].astype("datetime64[D]")
    mapping = table.guess.args["mapping"]
    edges = (lon.min(), lon.max(), lat.min(), lat.max())
    return {
        "driver": "pipeline.sources.table.TableSource",
        "description": f"own probes of {table.url.rpartition('/')[2]}, {len(lat)} sites",
        "args": {"urlpath": where, **table.guess.args},
        "metadata": {
            "support": "site",
            "license": license_,
            "doi": "none",
            "auth": "anonymous" if "://" in table.url else "none",
            "region": "longitude {:g}..{:g}, latitude {:g}..{:g}".format(*edges),
            "native_grid": "points",
            "native_units": ", ".join(f"{column_names(s)} {s['units']}" for s in mapping.values()),
            "time_convention": data.time_convention,
            "period": f"{days[0]}..{days[-1]}",
            "origin": table.url if "://" in table.url else table.url.rpartition("/")[2],
            "volume": {
                "days": int((days[-1] - days[0]).astype(int)) + 1,
                "per": "all",
                "megabytes": max(round(table.size / 1e6, 3), 0.001),
                "basis": "measured",
            },
        },
    }
