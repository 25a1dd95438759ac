"""A command of soilweave, run in the process of the test."""

import sys

import pytest

from pipeline import cli


@pytest.fixture
def soilweave(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def command(*args):
        monkeypatch.setattr(sys, "argv", ["soilweave", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return command
