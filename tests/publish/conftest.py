"""A copy of the finished small experiment, and where it is published to."""

from __future__ import annotations

import shutil

import pytest

from pipeline.storage.artefacts import Workspace


@pytest.fixture
def workspace(world, tmp_path):
    """A copy of the small experiment, which a test may change."""
    shutil.copytree(world.workspace.root, tmp_path / "ws" / "snow")
    return Workspace(str(tmp_path / "ws" / "snow"))


# In a bucket they take two minutes; test_daily.py publishes to one among the tests of servers.
@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.runs)])
def url(request, tmp_path):
    """Where it is published to."""
    if request.param == "local":
        return str(tmp_path / "published")
    return request.getfixturevalue("s3").url(tmp_path.name, "published")
