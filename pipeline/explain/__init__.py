"""`explain`: what is known of one value of the maps, and what it was made from."""

from __future__ import annotations

from pipeline.explain.answer import explain

__all__ = ["explain"]
