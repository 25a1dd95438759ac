"""Fill the templates in the arguments of catalog entries, which are data and never code.

A template is `{{NAME}}` for a parameter that the entry declares, `{{CATALOG_DIR}}` for the folder
of the catalog, or `{{env(NAME)}}` for an environment variable that the entry declares. Nothing else
between braces is accepted, so that a catalog from anywhere can be opened. Intake's own templates
are programs: they can run commands and read every environment variable.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.errors import ConfigError
from pipeline.sources.shared import access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pipeline.files import Json


MAX_PRELIMINARY_DAYS = 36_600
MAX_CHARACTERS = 8192  # of an argument in which templates have been filled
ACCEPTED = "accepted: {{NAME}} of a parameter, {{CATALOG_DIR}}, {{env(NAME)}}"
MAX_PROBLEMS = 8  # problems of an entry that a message lists

# The words of names whose values are taken to be secrets, such as AWS_SECRET_ACCESS_KEY, PGPASSWORD
# and AZURE_STORAGE_CONNECTION_STRING.
SECRET_WORDS = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|APIKEY|CONNECTION_STRING"
    r"|(^|_)(KEY|KEYS|KEYFILE|PASS|PWD|PW|AUTH|AUTHORIZATION|SAS|SIG|SIGNATURE|JWT|COOKIE|SESSION"
    r"|NETRC)(_|$)",
    re.IGNORECASE,
)

# Arguments that name variables and columns of files, which may be of any form.
NAMES = (("mapping",), ("columns",), ("flag",))

# Options of fsspec that choose another file system, or a folder that it writes to.
FORBIDDEN_OPTIONS = frozenset(
    {"protocol", "target_protocol", "remote_protocol", "fo", "fs", "cache_storage"}
)

_TEMPLATE = re.compile(r"\{\{\s*(?:env\(\s*[\"']?(?P<env>\w+)[\"']?\s*\)|(?P<name>\w+))\s*\}\}")
_MARK = re.compile(r"\{\{.*?\}\}|\{\{|\{%|\{#", re.DOTALL)
_FUNCTION = re.compile(r"\s*(client_)?(env|shell)\s*\(")
_SHOWN = 60  # characters of a template in a message


def is_local(catalog: str) -> bool:
    """Return whether a catalog is a file on this machine, which may use environment variables."""
    return "://" not in catalog or catalog.startswith("file://")


def catalog_folder(catalog: str) -> str:
    """Return the folder of a catalog, which `{{CATALOG_DIR}}` stands for."""
    return files.make_absolute(catalog).rpartition("/")[0]


def check_form(place: str, spec: Any) -> None:
    """Check that an entry has the form of an entry.

    Args:
      place: The catalog and the entry, for messages.
      spec: What the catalog says of the entry.

    Raises:
      ConfigError: If it has not; it lists all problems.
    """
    if not isinstance(spec, dict):
        raise ConfigError(place, f"is {type(spec).__name__}; expected keys and values")
    problems = []
    if not isinstance(spec.get("driver"), str):
        problems.append("`driver` must be the name of one driver")
    problems += [
        f"`{key}` must have keys and values"
        for key in ("args", "metadata", "parameters")
        if not isinstance(spec.get(key) or {}, dict)
    ]
    names = spec.get("environment") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        problems.append("`environment` must be a list of names, such as [SOILWEAVE_DATA]")
    metadata = spec.get("metadata")
    days = metadata.get("preliminary_days", 0) if isinstance(metadata, dict) else 0
    if type(days) is not int or not 0 <= days <= MAX_PRELIMINARY_DAYS:
        accepted = f"a number of days from 0 to {MAX_PRELIMINARY_DAYS:,}"
        problems.append(f"`metadata.preliminary_days` must be {accepted}")
    if problems:
        remedy = "catalogs/README.md explains the form of an entry"
        raise ConfigError(place, *problems, remedy=remedy)


def environment_names(spec: Json) -> list[str]:
    """Return the names of the environment variables that the templates of an entry use."""
    texts = (text for _, text in _strings(spec.get("args") or {}))
    names = [match["env"] for text in texts for match in _TEMPLATE.finditer(text)]
    return list(dict.fromkeys(filter(None, names)))


def unset_names(catalog: str, spec: Json) -> list[str]:
    """Return the environment variables that an entry may use, uses, and that are not set."""
    names = environment_names(spec)
    return [n for n in names if not os.environ.get(n) and not _why_not(catalog, spec, n)]


def fill(catalog: str, entry: str, spec: Json, values: Mapping[str, str]) -> Json:
    """Return the arguments of an entry with its templates filled.

    Args:
      catalog: URL of the catalog.
      entry: Name of the entry, for messages.
      spec: What the catalog says of the entry.
      values: Values of its parameters; others have their defaults.

    Raises:
      ConfigError: If a template is not accepted, or the arguments name a protocol or an option
        that is not; it lists all problems.
    """
    place = f"catalog {catalog}, entry {entry}"
    check_form(place, spec)
    problems: list[str] = []
    known = _parameter_values(spec, values, problems)
    known["CATALOG_DIR"] = catalog_folder(catalog)

    def value_of(match: re.Match[str], path: tuple[str, ...]) -> str:
        name, variable = match["name"], match["env"]
        if name in known:
            value = known[name]
        elif name:
            raise ValueError("a parameter that the entry does not declare, or without `default`")
        elif reason := _why_not(catalog, spec, variable, path):
            raise ValueError(reason)
        elif variable not in os.environ:
            raise ValueError(f"environment variable {variable} is not set")
        else:
            value = os.environ[variable]
        # A URL may have a password, and must not become a part of another one.
        if "://" in value and match.start() > 0:
            raise ValueError("is a URL, which is accepted only at the beginning of an argument")
        return value

    filled: Json = _fill_tree(spec.get("args") or {}, (), value_of, problems)
    problems = list(dict.fromkeys([*problems, *_forbidden(filled)]))
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        remedy = "catalogs/README.md lists what a catalog may contain"
        raise ConfigError(place, *problems[:MAX_PROBLEMS], *more, remedy=remedy)
    return filled


def nested_url(catalog: str, entry: str, spec: Json) -> str:
    """Return the URL of the catalog that an entry of driver `yaml_file_cat` refers to.

    Raises:
      ConfigError: If it is no catalog, or outside of the folder of a catalog that is read from a
        URL: that could be any file of this machine.
    """
    url = fill(catalog, entry, spec, {}).get("path")
    place = f"catalog {catalog}, entry {entry}"
    if not isinstance(url, str) or not url.endswith((".yaml", ".yml")):
        problem = "`args.path` must be the path or URL of a catalog.yaml"
        raise ConfigError(place, problem, remedy='such as "{{CATALOG_DIR}}/other.yaml"')
    folder = catalog_folder(catalog)
    if not is_local(catalog) and not (
        url.startswith(f"{folder}/")
        and posixpath.normpath(url).startswith(f"{posixpath.normpath(folder)}/")
    ):
        problem = f"nests {url}, which is not in the catalog's own folder"
        raise ConfigError(place, problem, remedy="name the catalog in your experiment instead")
    return url


def _why_not(catalog: str, spec: Json, name: str, path: tuple[str, ...] = ("urlpath",)) -> str:
    """Return why an entry may not use an environment variable; "" if it may.

    Args:
      catalog: URL of the catalog.
      spec: What the catalog says of the entry.
      name: The variable.
      path: The keys that lead to the argument that uses it.
    """
    if not is_local(catalog):
        return (
            "environment variables are not available to catalogs that are read from a URL; "
            "download the catalog to use them"
        )
    if path[:1] != ("urlpath",):
        return "environment variables are available in `urlpath` only"
    if SECRET_WORDS.search(name):
        return f"{name} looks like the name of a secret"
    if name not in (spec.get("environment") or []):
        return f"{name} is not declared; add `environment: [{name}]` to the entry"
    return ""


def _parameter_values(spec: Json, values: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Return the values of an entry's parameters as text; add problems of their defaults."""
    result = {}
    for name, parameter in (spec.get("parameters") or {}).items():
        default = parameter.get("default") if isinstance(parameter, dict) else None
        value = values.get(name, default)
        if value is None:
            continue
        result[str(name)] = str(value)
        if not isinstance(value, str | int | float):
            problems.append(f"parameter {name}: `default` must be a text or a number")
        elif name not in values and (_MARK.search(str(value)) or _FUNCTION.match(str(value))):
            problems.append(f"parameter {name}: {_quote(str(value))} is not accepted as a default")
    return result


def _fill_tree(
    tree: Any,
    path: tuple[str, ...],
    value_of: Callable[[re.Match[str], tuple[str, ...]], str],
    problems: list[str],
) -> Any:
    """Return arguments with all texts filled; keys stay as they are."""
    if isinstance(tree, dict):
        return {k: _fill_tree(v, (*path, str(k)), value_of, problems) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_fill_tree(item, path, value_of, problems) for item in tree]
    if not isinstance(tree, str) or not _MARK.search(tree):
        return tree
    where = f"args.{'.'.join(path)}"
    pieces, end = [], 0
    for mark in _MARK.finditer(tree):
        match = _TEMPLATE.fullmatch(tree, mark.start(), mark.end())
        try:
            if match is None:
                raise ValueError(ACCEPTED)
            pieces += [tree[end : mark.start()], value_of(match, path)]
        except ValueError as error:
            problems.append(f"{where}: {_quote(mark[0])}: {error}")
        end = mark.end()
        if sum(map(len, pieces)) > MAX_CHARACTERS or len(problems) > 10 * MAX_PROBLEMS:
            problems.append(f"{where}: longer than {MAX_CHARACTERS:,} characters when filled")
            break
    return "".join([*pieces, tree[end:]])


def _forbidden(arguments: Json) -> list[str]:
    """Return messages about protocols and options that are not accepted in arguments."""
    problems = []
    for path, text in _strings(arguments):
        if path[:1] not in NAMES:
            where = f"args.{'.'.join(path)}"
            problems += [f"{where}: {problem}" for problem in access.protocol_problems(text)]
    options = arguments.get("storage_options")
    for name in sorted(set(_keys(options)) & FORBIDDEN_OPTIONS):
        problems.append(f"args.storage_options: '{name}' is not accepted in a catalog")
    return problems


def _strings(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield all texts among arguments, with the keys that lead to them."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _strings(value, (*path, str(key)))
    elif isinstance(tree, list):
        for item in tree:
            yield from _strings(item, path)


def _keys(tree: Any) -> Iterator[str]:
    """Yield all keys among options."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key)
            yield from _keys(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _keys(item)


def _quote(text: str) -> str:
    """Return a text for a message, in one short line."""
    line = " ".join(text.split())
    return f"'{line[:_SHOWN]}{'...' if len(line) > _SHOWN else ''}'"
