"""A tracking server for the tests of this folder."""

from __future__ import annotations

import pytest
import servers


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A tracking server that hands artifacts on; its URI."""
    folder = tmp_path_factory.mktemp("server")
    backend, artifacts = f"sqlite:///{folder}/server.db", str(folder / "artifacts")
    with servers.mlflow_server(folder, backend, artifacts) as uri:
        yield uri
