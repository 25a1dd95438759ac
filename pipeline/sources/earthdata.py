"""Earthdata Login: credentials that refresh, and the exact names of granules, through CMR."""

from __future__ import annotations

from typing import Any


def headers() -> dict[str, str]:
    """Headers of HTTPS requests to Earthdata."""
    raise NotImplementedError


def s3_options(url: str) -> dict[str, Any]:
    """Options of s3fs for a bucket of Earthdata."""
    raise NotImplementedError(url)
