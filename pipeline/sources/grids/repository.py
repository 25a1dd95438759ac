"""Icechunk repositories: opened at a branch, a tag or a snapshot."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import http_errors, remote
from pipeline.sources.grids import stores

if TYPE_CHECKING:
    import xarray as xr

Chosen = tuple[tuple[str, str], ...]


@functools.lru_cache(maxsize=8)
def opened(url: str, group: str | None, chosen: Chosen, options: str) -> xr.Dataset:
    """A group of an Icechunk repository, opened once in a process, not decoded, nothing read yet.

    Args:
      url: the repository: s3, gs, or a folder.
      group: in it, None for its root.
      chosen: (("branch", name),), or tag or snapshot.
      options: of fsspec, as JSON.

    Raises:
      FileNotFoundError: there is none.
      PermissionError: it is refused.
      ConnectionError: its store does not answer.
    """
    session, _ = session_of(url, chosen, options)
    return stores.opened(session.store, group, None, consolidated=False)


def session_of(url: str, chosen: Chosen, options: str) -> tuple[Any, str]:
    """A session of a repository, and the id of the snapshot that it reads.

    Raises:
      FileNotFoundError: there is none.
      PermissionError: it is refused.
      ConnectionError: its store does not answer.
    """
    import icechunk

    given: dict[str, Any] = {
        ("snapshot_id" if key == "snapshot" else key): name for key, name in chosen
    }
    try:
        repository = icechunk.Repository.open(_storage(url, json.loads(options)))
        session = repository.readonly_session(**given)
    except icechunk.IcechunkError as error:
        told = " ".join(str(error).split())
        if "doesn't exist" in told or "not found" in told:
            raise FileNotFoundError(url) from error
        refused = any(
            word in told for word in ("AccessDenied", "403", "Forbidden", "InvalidAccess")
        )
        raise (PermissionError if refused else ConnectionError)(url) from error
    return session, str(session.snapshot_id)


def _storage(url: str, options: dict[str, Any]) -> Any:
    """Where Icechunk finds a repository: s3, gs, or a folder; options as s3fs has them."""
    import icechunk

    scheme, separator, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not separator or scheme == "file":
        if not os.path.isdir(rest if separator else url):
            raise FileNotFoundError(url)
        return icechunk.local_filesystem_storage(rest if separator else url)
    if scheme == "gs":
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix)
    if scheme != "s3":
        raise DataError(
            http_errors.shown(url), f"Icechunk on {scheme}://, expected s3, gs or a folder"
        )
    client = options.get("client_kwargs", {})
    endpoint = files.s3_endpoint(options)
    anonymous = bool(options.get("anon"))
    region = client.get("region_name") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    if anonymous and remote.ROUTE is not None:  # a signature would be of another host
        asked = endpoint or f"https://s3.{region}.amazonaws.com"
        endpoint = remote.routed(f"{asked.rstrip('/')}/")  # keys follow without a slash
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=region,
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=endpoint is not None,
        anonymous=anonymous,
        from_env=not anonymous,
    )
