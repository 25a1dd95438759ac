"""The simulator: a synthetic planet with known truth, written as a provider would write it."""

from __future__ import annotations

from pipeline.planet.stage import run

__all__ = ["run"]
