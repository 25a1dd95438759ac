"""The viewer: its page, built from infra/viewer, and a server that shows maps with it."""

from __future__ import annotations

from pipeline.viewer.built import put_beside
from pipeline.viewer.server import Server
from pipeline.viewer.shown import find_shown

__all__ = ["Server", "find_shown", "put_beside"]
