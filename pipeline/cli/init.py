"""The verb `init`, which writes an experiment file with explanations."""

from __future__ import annotations

import json
import posixpath
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from pipeline import files
from pipeline.cli import manners
from pipeline.cli.run_stages import DebugOption, out
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from pipeline.files import Json


WIDTH = 96
SCHEMA = "soilweave.schema.json"
QUESTIONS = {
    "--bbox": "Region, as west,south,east,north in degrees",
    "--period": "Period, as FIRST..LAST, such as 2016-01-01..2019-12-31",
}

FileArgument = Annotated[str, typer.Argument(metavar="FILE.yaml", help="The file to write.")]

BboxOption = Annotated[
    str | None,
    typer.Option(metavar="W,S,E,N", help="The region, in degrees, such as --bbox=-104,39,-97,41."),
]

PeriodOption = Annotated[
    str | None,
    typer.Option(metavar="FIRST..LAST", help="The days, such as 2016-01-01..2019-12-31."),
]

ProbesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CATALOG.yaml:NAME",
        help="Probes to learn from as well, as `doctor FILE.csv --write CATALOG.yaml:NAME` has "
        "named them; repeatable.",
    ),
]

LikeOption = Annotated[
    str,
    typer.Option(
        metavar="PRESET",
        help="The preset to take sources and all other settings from (see `soilweave ls`).",
    ),
]


def add_init_verb(app: typer.Typer) -> None:
    """Add `init`."""
    app.command()(init)


def init(
    file: FileArgument,
    bbox: BboxOption = None,
    period: PeriodOption = None,
    probes: ProbesOption = None,
    like: LikeOption = "conus",
    debug: DebugOption = False,
) -> None:
    """Write an experiment file of your own, with an explanation of every setting.

    Region and period are asked for if they are not given and this is a terminal. Sources and all
    other settings are those of a preset. Beside the file, its JSON schema is written, which editors
    check the file with and complete settings from.

    Example: soilweave init mine.yaml --bbox=-104,39,-97,41 --period 2016-01-01..2019-12-31
    --probes my.yaml:mine
    """
    from pipeline.experiment import load

    url = files.make_absolute(file)
    _check_name(url)
    given = _ask({"--bbox": bbox, "--period": period}, file)
    settings = load.settings_for_region(given["--bbox"], given["--period"])
    tree = load.read_settings("experiments", like)
    name = posixpath.splitext(url.rpartition("/")[2])[0]
    tree |= {"name": name, "title": f"{name}, with the sources of {like}"}
    for key, value in (setting.split("=", 1) for setting in settings):
        section, _, side = key.partition(".")
        target, last = (tree[section], side) if side else (tree, section)
        target[last] = yaml.safe_load(value)
    if probes:
        insitu = tree["sources"].get("insitu") or []
        tree["sources"]["insitu"] = [*([insitu] if isinstance(insitu, str) else insitu), *probes]
    files.write_bytes(url, annotate(tree).encode())
    try:
        load.load_experiment(url)
    except ConfigError:
        files.remove(url)
        raise
    schema = files.join(url.rpartition("/")[0], SCHEMA)
    files.write_bytes(schema, json.dumps(load.file_schema(), indent=1).encode())
    lines = [f"Experiment: {url}", f"  check its data: soilweave doctor {file}"]
    lines += [f"  see what it takes: soilweave plan {file}", f"  run it: soilweave run {file}"]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    manners.write_json({"experiment": url, "schema": schema})


def _check_name(url: str) -> None:
    """Check that a file can be the experiment's.

    Raises:
      ConfigError: If it has another ending, its name cannot be that of an experiment, or it exists.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.ya?ml", url.rpartition("/")[2]):
        problem = "expected a file NAME.yaml, whose name is that of the experiment: letters, "
        raise ConfigError(url, problem + "numbers, and _ . - after the first")
    if files.exists(url):
        raise ConfigError(url, "exists already", remedy="give another name, or edit it")


def _ask(options: dict[str, str | None], file: str) -> dict[str, str]:
    """Return the values of options; those that are not given are asked for.

    Raises:
      ConfigError: If one is not given, and nobody can be asked.
    """
    missing = [option for option, value in options.items() if not value]
    if missing and not sys.stdin.isatty():
        example = "--bbox=-104,39,-97,41 --period 2016-01-01..2019-12-31"
        hint = f"such as: soilweave init {file} {example}"
        raise ConfigError(", ".join(missing), "not given", remedy=hint)
    return {
        option: value or typer.prompt(QUESTIONS[option], err=True)
        for option, value in options.items()
    }


def annotate(tree: Json) -> str:
    """Return settings as YAML, with the description of each as a comment above it.

    Args:
      tree: Settings of an experiment.
    """
    from pipeline.experiment.config import Experiment

    lines = [f"# yaml-language-server: $schema={SCHEMA}"]
    lines += textwrap.wrap(
        "An experiment of soilweave. What is left out has the value of the recipe, or its default: "
        "soilweave ls --schema lists all settings. --set KEY=VALUE replaces one for one command.",
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
    )
    lines += ["", *_describe(tree, Experiment, "")]
    return "\n".join(lines) + "\n"


def _describe(tree: Json, kind: type[BaseModel], indent: str) -> Iterator[str]:
    """Yield the lines of a section."""
    for key, value in tree.items():
        field = kind.model_fields.get(key)
        if field is not None and field.description:
            prefix = f"{indent}# "
            yield from textwrap.wrap(
                field.description, WIDTH, initial_indent=prefix, subsequent_indent=prefix
            )
        section: Any = None if field is None else field.annotation
        if isinstance(value, dict) and isinstance(section, type):
            if section.__doc__ and not (field and field.description):
                yield f"{indent}# {section.__doc__.splitlines()[0]}"
            yield f"{indent}{key}:"
            yield from _describe(value, section, f"{indent}  ")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=WIDTH)
            text = text.removesuffix("...\n").rstrip()
            yield textwrap.indent(f"{key}: {text}", indent)
        if not indent:
            yield ""
