"""The report: artefacts in, one self-contained HTML page out.

Each topic has one file, with its text, tables and figures.
"""

from __future__ import annotations

from pipeline.evaluate.report.page import run

__all__ = ["run"]
