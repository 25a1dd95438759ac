"""What all verbs have in common: their order in `--help`, `--quiet` and `--json`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline import __version__, files
from pipeline.cli import run_stages
from pipeline.errors import redact_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.files import Json


# Verbs in the order of the work; others follow.
ORDER = (
    *("init", "ls", "doctor", "plan"),
    *("run", "prepare", "train", "predict", "evaluate"),
    *("score", "update", "explain", "export", "publish", "view", "verify", "submit"),
)
WITHOUT_JSON = ("view",)  # verbs without a result
STDOUT = "-"
_asked: dict[str, Any] = {"quiet": False, "json": None}  # the options of the verb that runs


def _ask(**options: Any) -> None:
    """Keep options, and let the consoles print accordingly."""
    _asked.update(options)
    run_stages.out.quiet = _asked["quiet"] or _asked["json"] == STDOUT
    run_stages.notes.quiet = _asked["quiet"]


def _set_quiet(quiet: bool) -> None:
    _ask(quiet=quiet)


def _set_json(url: str | None) -> None:
    _ask(json=url)


QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", callback=_set_quiet, expose_value=False, help="Print nothing but errors."
    ),
]

JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=_set_json,
        expose_value=False,
        help="Write the result as JSON to this file or URL; - prints it instead of the text.",
    ),
]

_shared = typer.Typer(add_completion=False)


@_shared.command()
def _options(quiet: QuietOption = False, json_: JsonOption = None) -> None:
    """Hold the options that all verbs have."""


class Verbs(TyperGroup):
    """The verbs in the order of the work, each with the options that all have."""

    def __init__(self, **attrs: Any) -> None:
        """Add the options."""
        super().__init__(**attrs)
        quiet, json_ = typer.main.get_command(_shared).params
        for name, command in self.commands.items():
            command.params += [quiet] if name in WITHOUT_JSON else [quiet, json_]
            command.callback = _checking_first(command.callback)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the verbs in order."""
        known = {name: place for place, name in enumerate(ORDER)}
        return sorted(self.commands, key=lambda name: known.get(name, len(known)))


def _checking_first(verb: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return a verb that first checks that its result can be written."""
    assert verb is not None

    def checked(**arguments: Any) -> Any:
        if _asked["json"] != STDOUT:
            files.check_writable(_asked["json"])
        return verb(**arguments)

    return checked


def show_version(asked: bool) -> None:
    """Print the version and end, if it was asked for."""
    if asked:
        typer.echo(f"soilweave {__version__}")
        raise typer.Exit


def write_json(result: Json) -> None:
    """Write the result of a verb where `--json` says, without secrets; nowhere if it is not given.

    Args:
      result: JSON values; dates become text.
    """
    url = _asked["json"]
    if url is None:
        return
    text = redact_secrets(json.dumps(result, indent=1, ensure_ascii=False, default=str))
    if url == STDOUT:
        typer.echo(text)
    else:
        files.write_bytes(files.make_absolute(url), text.encode())
