"""List the files of a folder, and read small files whole, several at the same time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import fsspec

from pipeline.sources.shared import access as shared_access
from pipeline.sources.shared import http_errors

PARALLEL_READS = 16  # files that are read at the same time
Access = tuple[dict[str, Any], str | None]  # storage options and login


def list_files(folder: str, access: Access) -> list[str]:
    """Return the URLs of the entries of a folder, sorted; an empty list if it does not exist.

    Args:
      folder: URL of the folder.
      access: Storage options and login.

    Raises:
      DataError: If access is refused or the server does not answer.
    """
    given, login = access
    with http_errors.plain_http_errors(folder, login):
        filesystem, path = fsspec.core.url_to_fs(
            folder, **shared_access.fsspec_options(folder, given, login)
        )
        try:
            entries = filesystem.ls(path.rstrip("/") + "/", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted({str(filesystem.unstrip_protocol(entry)) for entry in entries})


def fetch_files(urls: list[str], access: Access) -> dict[str, bytes]:
    """Return {URL: content} of files, several of which are read at the same time.

    A file from a server is kept in this process, so that what `digest` reads is not sent again when
    the values are read.

    Args:
      urls: URLs of the files.
      access: Storage options and login.

    Raises:
      DataError: If a file is missing, access is refused or its server does not answer.
    """
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return dict(zip(urls, pool.map(lambda url: _read_file(url, access), urls), strict=True))


def _read_file(url: str, access: Access) -> bytes:
    if not url.startswith(("http://", "https://")):
        return shared_access.read_file(url, *access)
    return _download(url, json.dumps(access[0], default=str), access[1])


@lru_cache(maxsize=2048)  # a file has about 80 kB
def _download(url: str, storage_options: str, login: str | None) -> bytes:
    return shared_access.read_file(url, json.loads(storage_options), login)
