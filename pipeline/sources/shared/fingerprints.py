"""What tells whether files have changed: their tags, of many files at once, without reading all."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fsspec

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.shared import access, http_errors

if TYPE_CHECKING:
    from collections.abc import Sequence


AT_ONCE = 16

# How many bytes are read to tell the content of files that their store has no tag for.
READ_LOCALLY, READ_ELSEWHERE = 2 * 2**30, 2**28
CONTENT = ("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "content_md5")
CHANGED = ("mtime", "LastModified", "Last-Modified", "last_modified", "updated", "modified")
Info = dict[str, Any]


def of_files(
    urls: Sequence[str], given: dict[str, Any], login: str | None = None, algorithm: str = "sha256"
) -> list[str | None]:
    """A tag of each file, None where it is absent.

    It is the store's own tag of the content. Where there is none it is the digest of the content,
    if the files without a tag are not large all together (READ_LOCALLY, READ_ELSEWHERE bytes); of
    larger ones it is the size and the time of the last change.

    A folder is listed once for all files in it. A store without listings, such as an HTTP server,
    or one that refuses to list, is asked for the size and tag of each file.

    Args:
      urls: the files, all of one store.
      given: the entry's own `storage_options`.
      login: `earthdata`, where the provider wants to know who reads.
      algorithm: of digests of content.

    Raises:
      DataError: the store refuses, or does not answer.
    """
    if not urls:
        return []
    infos = _infos(urls, given, login)
    made = [None if one is None else _content(one) for one in infos]
    untold = [i for i, one in enumerate(infos) if one is not None and made[i] is None]
    held = [infos[i] or {} for i in untold]
    most = READ_ELSEWHERE if "://" in urls[0] and not urls[0].startswith("file:") else READ_LOCALLY
    few = sum(int(one.get("size") or 0) for one in held) <= most
    for i, one in zip(untold, held, strict=True):
        if few:
            made[i] = _read(urls[i], given, login, algorithm)
        else:
            changed = next((one[key] for key in CHANGED if one.get(key) is not None), "")
            made[i] = f"{one.get('size')} {changed}"
    return made


def _infos(urls: Sequence[str], given: dict[str, Any], login: str | None) -> list[Info | None]:
    """What the store says of each file, in one listing of each folder where it can list."""

    def alone(url: str) -> Info | None:
        return info(url, given, login)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        if urls[0].startswith(("http://", "https://")):
            return list(pool.map(alone, urls))
        folders = defaultdict(list)
        for url in urls:
            above, slash, _ = url.rpartition("/")
            folders[above or slash or "."].append(url)
        listings = pool.map(lambda folder: _listed(folder, given, login), folders)
        found: dict[str, Info | None] = {}
        for wanted, listed in zip(folders.values(), listings, strict=True):
            if listed is None:
                found |= zip(wanted, pool.map(alone, wanted), strict=True)
            else:
                found |= {url: listed.get(url.rpartition("/")[2]) for url in wanted}
    return [found[url] for url in urls]


def _listed(folder: str, given: dict[str, Any], login: str | None) -> dict[str, Info] | None:
    """Files in a folder, by name; None where it may not be listed."""
    with http_errors.answering(folder, login):
        filesystem, path = _open(folder, given, login)
        try:
            entries = filesystem.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except PermissionError:
            return None
    return {str(one["name"]).rstrip("/").rpartition("/")[2]: one for one in entries}


def info(url: str, given: dict[str, Any], login: str | None = None) -> Info | None:
    """What the store says of a file, such as its size; None where it is absent.

    Raises:
      DataError: the store refuses, or does not answer.
    """
    try:
        with http_errors.answering(url, login):
            filesystem, path = _open(url, given, login)
            return dict(filesystem.info(path))
    except DataError as error:
        if error.problems[0].startswith("not found"):
            return None
        raise


def _content(one: Info) -> str | None:
    tag = next((one[key] for key in CONTENT if one.get(key)), None)
    return None if tag is None else str(tag).strip('"')


def _read(url: str, given: dict[str, Any], login: str | None, algorithm: str) -> str:
    with http_errors.answering(url, login):
        filesystem, path = _open(url, given, login)
        with filesystem.open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()


def _open(url: str, given: dict[str, Any], login: str | None) -> tuple[Any, str]:
    options = access.options(url, given, login) | files.FRESH
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(path)
