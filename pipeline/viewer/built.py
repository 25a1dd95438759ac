"""The files of the viewer, as `make viewer` builds them from infra/viewer, and their place.

The page static/index.html reads `latest.json` beside it, and then one release. static/viewer/ has
scripts, styles and outlines, whose names change with their content; the digest of the sources that
they were built from; and the licences of the libraries in them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import StoreError
from pipeline.failures import S3_PREFIXES
from pipeline.storage import publications

if TYPE_CHECKING:
    from collections.abc import Mapping


PAGE = publications.VIEWER[0]
STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


@functools.cache
def built_files() -> Mapping[str, bytes]:
    """Return the content of the files by key, the page last.

    Raises:
      StoreError: If they are not there.
    """
    keys = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()]
    if PAGE not in keys:
        hint = "install soilweave again, or build them in a checkout: make viewer"
        raise StoreError(str(STATIC), "the files of the viewer are missing", remedy=hint)
    return {key: (STATIC / key).read_bytes() for key in sorted(keys, key=lambda k: (k == PAGE, k))}


def media_type(key: str) -> str:
    """Return the media type of an object of the page or of a release."""
    return TYPES.get(Path(key).suffix, "application/octet-stream")


def cache_control(key: str) -> str:
    """Return how long browsers may keep a file of the page: those with a digest for ever."""
    return FOR_EVER if "-" in Path(key).stem else ASK_AGAIN


def put_beside(url: str) -> str:
    """Put the viewer beside the releases of a publication; the page last, which names the others.

    Args:
      url: URL of the publication.

    Returns:
      URL of the page.

    Raises:
      StoreError: If it cannot be written.
    """
    url = files.make_absolute(url).rstrip("/")
    for key, data in built_files().items():
        options = {}
        if url.startswith(S3_PREFIXES):
            options = {"ContentType": media_type(key), "CacheControl": cache_control(key)}
        files.write_bytes(files.join(url, key), data, **options)
    return files.join(url, PAGE)
