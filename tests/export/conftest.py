"""Maps that are made up, to be exported."""

from __future__ import annotations

import shutil

import pytest
from made_maps import Made, Said, make

from pipeline.storage.artefacts import Workspace


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """The maps, which no test changes."""
    return make(tmp_path_factory.mktemp("export"))


@pytest.fixture
def own(made, tmp_path) -> Made:
    """A copy, which a test may change."""
    shutil.copytree(made.root, tmp_path / "ws" / "demo")
    return Made(Workspace(str(tmp_path / "ws" / "demo")))


@pytest.fixture
def said() -> Said:
    return Said()
