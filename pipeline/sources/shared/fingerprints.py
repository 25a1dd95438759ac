"""Tags that identify the content of many files at once, without reading large files."""

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


CONCURRENT_REQUESTS = 16  # requests

# Limits in bytes for reading the content of files for which their store has no tag.
MAX_LOCAL_BYTES, MAX_REMOTE_BYTES = 2 * 2**30, 2**28

# Keys of fsspec's file information: tags of the content, and times of the last change.
CONTENT_TAG_KEYS = ("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "content_md5")
MODIFIED_KEYS = ("mtime", "LastModified", "Last-Modified", "last_modified", "updated", "modified")
FileInfo = dict[str, Any]


def tag_files(
    urls: Sequence[str],
    storage_options: dict[str, Any],
    login: str | None = None,
    algorithm: str = "sha256",
) -> list[str | None]:
    """Return a tag of each file, None for files that do not exist.

    The tag is the store's own tag of the content. Files without one are read, and the tag is a
    digest of the content, unless they have more than 2 GiB (local files) or 256 MiB (others) in
    total; the tag is then the size and the time of the last change.

    A folder is listed once for all of its files. If a store cannot list folders, as an HTTP
    server, or refuses to, it is asked for the size and tag of each file.

    Args:
      urls: The files, all in one store.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.
      algorithm: Hash algorithm of digests of content.

    Raises:
      DataError: If the store refuses or does not answer.
    """
    if not urls:
        return []
    infos = _file_infos(urls, storage_options, login)
    tags = [None if one is None else _content_tag(one) for one in infos]
    untagged = [i for i, one in enumerate(infos) if one is not None and tags[i] is None]
    untagged_infos = [infos[i] or {} for i in untagged]
    limit = (
        MAX_REMOTE_BYTES
        if "://" in urls[0] and not urls[0].startswith("file:")
        else MAX_LOCAL_BYTES
    )
    are_small = sum(int(one.get("size") or 0) for one in untagged_infos) <= limit
    for i, one in zip(untagged, untagged_infos, strict=True):
        if are_small:
            tags[i] = _hash_content(urls[i], storage_options, login, algorithm)
        else:
            changed = next((one[key] for key in MODIFIED_KEYS if one.get(key) is not None), "")
            tags[i] = f"{one.get('size')} {changed}"
    return tags


def find_existing(
    urls: Sequence[str], storage_options: dict[str, Any], login: str | None = None
) -> list[bool]:
    """Return whether each file exists; the arguments and errors are those of `tag_files`."""
    return [info is not None for info in _file_infos(urls, storage_options, login)]


def _file_infos(
    urls: Sequence[str], storage_options: dict[str, Any], login: str | None
) -> list[FileInfo | None]:
    """Return the store's information about each file, from one listing of each folder if it can."""

    def single_info(url: str) -> FileInfo | None:
        return file_info(url, storage_options, login)

    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        if urls[0].startswith(("http://", "https://")):
            return list(pool.map(single_info, urls))
        folders = defaultdict(list)
        for url in urls:
            folder, slash, _ = url.rpartition("/")
            folders[folder or slash or "."].append(url)
        listings = pool.map(lambda folder: _list_folder(folder, storage_options, login), folders)
        infos: dict[str, FileInfo | None] = {}
        for folder_urls, listing in zip(folders.values(), listings, strict=True):
            if listing is None:
                infos |= zip(folder_urls, pool.map(single_info, folder_urls), strict=True)
            else:
                infos |= {url: listing.get(url.rpartition("/")[2]) for url in folder_urls}
    return [infos[url] for url in urls]


def _list_folder(
    folder: str, storage_options: dict[str, Any], login: str | None
) -> dict[str, FileInfo] | None:
    """Return {name: information} of the files in a folder; None if listing is refused."""
    with http_errors.plain_http_errors(folder, login, options=storage_options):
        filesystem, path = _open_filesystem(folder, storage_options, login)
        try:
            entries = filesystem.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except PermissionError:
            return None
    return {str(one["name"]).rstrip("/").rpartition("/")[2]: one for one in entries}


def file_info(
    url: str, storage_options: dict[str, Any], login: str | None = None
) -> FileInfo | None:
    """Return the store's information about a file, such as its size; None if it does not exist.

    Args:
      url: The file.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If the store refuses or does not answer.
    """
    try:
        with http_errors.plain_http_errors(url, login, options=storage_options):
            filesystem, path = _open_filesystem(url, storage_options, login)
            return dict(filesystem.info(path))
    except DataError as error:
        if error.problems[0].startswith("not found"):
            return None
        raise


def _content_tag(one: FileInfo) -> str | None:
    """Return the store's tag of the content of a file, None if it has none."""
    tag = next((one[key] for key in CONTENT_TAG_KEYS if one.get(key)), None)
    return None if tag is None else str(tag).strip('"')


def _hash_content(
    url: str, storage_options: dict[str, Any], login: str | None, algorithm: str
) -> str:
    """Return the digest of the content of a file."""
    with http_errors.plain_http_errors(url, login, options=storage_options):
        filesystem, path = _open_filesystem(url, storage_options, login)
        with filesystem.open(path, "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()


def _open_filesystem(
    url: str, storage_options: dict[str, Any], login: str | None
) -> tuple[Any, str]:
    """Return the file system of a URL, without cached listings, and the path in it."""
    options = access.fsspec_options(url, storage_options, login) | files.NO_LISTING_CACHE
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(path)
