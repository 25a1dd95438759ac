"""The journey: artefact in, artefact out; each stage is one module."""

from __future__ import annotations

__version__ = "0.2.0"  # the build reads it here; so does a job, whose code is not installed
