"""Publish an experiment as a release, switch readers to it, go back, and remove old releases.

A release is written and verified under a prefix of its own. Then `latest.json` is switched to it by
a conditional write, so that a reader sees the earlier release or this one, and nothing in between.
One publisher at a time writes to a publication: it holds `lease.json` there, as in a workspace.
What a publisher that was killed has left is continued if the content is the same, or removed.

`latest.json` and the manifests are described in `storage/publications.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ConfigError, DamagedError, HeldError, StoreError, UnwritableError
from pipeline.publish import content, transfer
from pipeline.storage import lease as storage_lease
from pipeline.storage import publications, records
from pipeline.storage.publications import COLLECTION, LATEST, MANIFEST, RELEASE, RELEASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.experiment.product import ProductConfig
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.publish.content import Content
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.lease import Lease
    from pipeline.storage.publications import Release


LEASE = "lease.json"
STAC_VERSION = "1.1.0"  # of latest.json
OWN_NAMES = {LATEST, RELEASES, LEASE, *publications.VIEWER}  # what a publication consists of


def publish(
    workspace: Workspace,
    url: str,
    progress: Progress,
    keep: int | None = None,
    product: ProductConfig | None = None,
) -> str:
    """Publish an experiment, and make it the latest release.

    If the latest release has the same content and is intact, nothing is written.

    Args:
      workspace: The experiment's folder in the workspace.
      url: Where to publish: a folder, or a prefix of a bucket, for this experiment alone.
      progress: Receives the progress.
      keep: The number of releases to keep, the latest among them; None keeps all.
      product: Licence, creator and DOI to state; None for what was stated when it was run.

    Returns:
      The id of the release.

    Raises:
      ConfigError: If the URL is not a place to publish to.
      StoreError: If the experiment is not complete, another publisher is at work, or something
        cannot be read, written or verified. Readers still see the earlier release.
    """
    url = files.make_absolute(url).rstrip("/")
    _check_target(workspace, url)
    _read_latest(url, workspace.described().name)
    return publish_content(content.collect(workspace, product), url, progress, keep)


def publish_content(made: Content, url: str, progress: Progress, keep: int | None = None) -> str:
    """Publish what was collected of an experiment; see `publish`."""
    found = _read_latest(url, made.experiment.name)
    progress.start("publish", len(made.items), "objects")
    earlier = _latest_release(url, found)
    if earlier is not None and _is_intact(earlier, made) and not _surplus(url, found, keep):
        progress.finish(f"unchanged: {earlier.name} is the latest release already")
        return earlier.name
    lease = storage_lease.get_lease(files.join(url, LEASE))
    with lease.given_back(), _as_before(url):
        _take(lease, progress)
        found = _read_latest(url, made.experiment.name)  # another publisher may have been faster
        release = _complete_release(url, made, _latest_release(url, found), progress)
        _switch(url, lease, found, release)
        removed = _remove_releases(url, keep)
    described = f"release {release.name} is the latest: {_describe(release)}"
    progress.finish(described + (f"; {removed} others removed" if removed else ""))
    return release.name


def roll_back(url: str, progress: Progress) -> str:
    """Make the release that was the latest before the latest again; nothing is removed.

    Args:
      url: URL of the publication.
      progress: Receives the progress.

    Returns:
      The id of the release.

    Raises:
      StoreError: If there is no release before, or another publisher is at work.
    """
    url = files.make_absolute(url).rstrip("/")
    progress.start("publish", 1, "release")
    lease = storage_lease.get_lease(files.join(url, LEASE))
    if publications.read_latest(url) is None:
        raise StoreError(url, "is no publication", remedy="publish first: soilweave publish")
    with lease.given_back():
        _take(lease, progress)
        found = publications.read_latest(url)
        names = found[0]["releases"] if found is not None else []
        earlier = (_read_release(publications.release_url(url, name)) for name in names[1:])
        release = next(filter(None, earlier), None)
        if release is None:
            problem = f"there is no release before {', '.join(names[:1])}"
            raise StoreError(url, problem, remedy="publish the experiment as it should be")
        _switch(url, lease, found, release, forwards=False)
    progress.finish(f"release {release.name} is the latest again, instead of {names[0]}")
    return release.name


def _read_latest(url: str, experiment: str) -> tuple[Json, bytes] | None:
    """Read latest.json of a publication of an experiment.

    Raises:
      ConfigError: If the publication is that of another experiment.
    """
    found = publications.read_latest(url)
    if found is not None and found[0]["experiment"] != experiment:
        problem = f"has releases of experiment {found[0]['experiment']}, not of {experiment}"
        raise ConfigError(f"--to {url}", problem, remedy="publish it under another URL")
    return found


def _latest_release(url: str, found: tuple[Json, bytes] | None) -> Release | None:
    """Return the release that latest.json names; None if it cannot be used."""
    if found is None:
        return None
    return _read_release(publications.release_url(url, found[0]["release"]))


def _read_release(url: str) -> Release | None:
    """Return a release; None if it is not complete, or its manifest is damaged."""
    try:
        return publications.read_release(url)
    except DamagedError:
        return None


def _check_target(workspace: Workspace, url: str) -> None:
    """Check that a URL is a place to publish to.

    Raises:
      ConfigError: If it cannot be written to, is in the experiment's own folder, or is something
        else than a publication.
    """
    where = f"--to {url}"
    if url.startswith(files.HTTP_PREFIXES):
        problem = "cannot be written to over HTTP"
        raise ConfigError(where, problem, remedy="give a folder or a bucket, such as s3://BUCKET/X")
    if _real(url).startswith(_real(workspace.root)):
        hint = "give a folder or a bucket outside of it"
        raise ConfigError(where, f"is in the experiment's own folder {workspace.root}", remedy=hint)
    if others := sorted({*files.list_folder(url)} - OWN_NAMES):
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        problem = f"contains {some}, which is no part of a publication"
        raise ConfigError(where, problem, remedy="give an empty folder or prefix")


def _real(url: str) -> str:
    """Return a URL, or a local path without links, with a final slash."""
    return f"{url if '://' in url else os.path.realpath(url)}/"


@contextlib.contextmanager
def _as_before(url: str) -> Iterator[None]:
    """Say of an object that cannot be written that readers do not notice, and what to do."""
    try:
        yield
    except UnwritableError as error:
        if not error.place.startswith(url) or error.place == files.join(url, LEASE):
            raise
        hint = "the latest release is as before; correct this and publish again, which continues"
        raise StoreError(error.place, *error.problems, remedy=hint) from error


def _take(lease: Lease, progress: Progress) -> None:
    """Take the lease of a publication.

    Raises:
      StoreError: If another publisher holds it, it cannot be written, or the store cannot write on
        condition, so that two publishers could not be told apart.
    """
    try:
        lease.take(progress.note)
        ignored = files.compare_and_swap(lease.url, b"{}", None)
    except StoreError as error:
        hint = "give a folder or bucket that you can write to with --to"
        if isinstance(error, HeldError):
            hint = "another publisher is at work; wait for it to end, then publish again"
        raise StoreError(error.place, *error.problems, remedy=hint) from error
    if ignored:
        files.remove(lease.url)
        problem = "the store ignores conditional writes (If-None-Match), so two publishers could "
        problem += "overwrite each other"
        raise StoreError(lease.url, problem, remedy="publish to a store that supports them")


def _is_intact(release: Release, made: Content) -> bool:
    """Return whether a release has this content, and all of its objects are there."""
    if release.manifest["content_sha256"] != made.digest:
        return False
    there = transfer.intact_objects(release)
    return all(record["sha256"] in there for record in release.objects.values())


def _complete_release(
    url: str, made: Content, earlier: Release | None, progress: Progress
) -> Release:
    """Write, verify and describe a release, or complete the one that has this content."""
    name = _find_folder(url, made.digest)
    target = publications.release_url(url, name)
    whole = _read_release(target)
    if whole is not None and _is_intact(whole, made):
        return whole
    done = transfer.transfer(made.items, target, earlier, progress)
    listed = transfer.verify_objects(done, target)
    progress.note(transfer.summary_line(done))
    experiment = made.experiment
    manifest = {
        "release": name,
        "experiment": experiment.name,
        "title": experiment.title,
        "target": experiment.target,
        "arms": [*experiment.arms],
        "complete_through": made.complete_through,
        "created": _now(),
        "content_sha256": made.digest,
        "objects": listed,
    }
    files.write_json(files.join(target, MANIFEST), records.seal(manifest, RELEASE))
    release = publications.read_release(target)
    if release is None:
        hint = "publish again; the latest release is as before"
        raise StoreError(files.join(target, MANIFEST), "was written but is missing", remedy=hint)
    return release


def _find_folder(url: str, digest: str) -> str:
    """Return the id of the release with a content, a new one if there is none.

    What killed publishers have left of other releases is removed; this process holds the lease.
    """
    chosen = ""
    for name in files.list_folder(files.join(url, RELEASES)):
        folder = publications.release_url(url, name)
        if name.endswith(f"-{digest[:12]}"):
            chosen = name
        elif not files.exists(files.join(folder, MANIFEST)):
            files.remove(folder)
    return chosen or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{digest[:12]}"


def _switch(
    url: str,
    lease: Lease,
    found: tuple[Json, bytes] | None,
    release: Release,
    forwards: bool = True,
) -> None:
    """Switch latest.json to a release, if it still is what was found.

    Args:
      url: URL of the publication.
      lease: Its lease.
      found: latest.json, decoded and as stored, when the publisher began.
      release: The release.
      forwards: Whether it is a new one; if not, the ones after it are forgotten.

    Raises:
      StoreError: If another publisher has taken the lease, or has switched latest.json.
    """
    before: list[str] = found[0]["releases"] if found is not None else _complete_releases(url)
    if forwards:
        before = [release.name, *(name for name in before if name != release.name)]
    else:
        before = before[before.index(release.name) :]
    latest = {
        "experiment": release.manifest["experiment"],
        "release": release.name,
        "path": f"{RELEASES}/{release.name}",
        "complete_through": release.manifest["complete_through"],
        "published": _now(),
        "releases": before,
        **_catalog_fields(release),
    }
    where, data = files.join(url, LATEST), json.dumps(latest, indent=1).encode()
    lease.check()
    if not files.compare_and_swap(where, data, None if found is None else found[1]):
        problem = (
            f"another publisher has switched it meanwhile, so {release.name} is not the latest"
        )
        raise StoreError(where, problem, remedy="look at what it has published, then publish again")


def _complete_releases(url: str) -> list[str]:
    """Return the ids of all complete releases, the newest first.

    They were the latest before, if latest.json was damaged and had to be removed.
    """
    names = files.list_folder(files.join(url, RELEASES))
    complete = (name for name in names if _read_release(publications.release_url(url, name)))
    return sorted(complete, reverse=True)


def _catalog_fields(release: Release) -> Json:
    """Return the fields that make latest.json a STAC catalog with the release as its child."""
    json_type = {"type": "application/json"}
    links = [{"rel": "root", "href": f"./{LATEST}"} | json_type]
    if COLLECTION in release.objects:  # releases of earlier versions have none
        href = f"./{RELEASES}/{release.name}/{COLLECTION}"
        links.append({"rel": "child", "href": href} | json_type)
    title = release.manifest["title"]
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": f"{release.manifest['experiment']}-latest",
        "title": title,
        "description": f"The latest release of: {title}",
        "links": links,
    }


def _surplus(url: str, found: tuple[Json, bytes] | None, keep: int | None) -> list[str]:
    """Return the ids of the releases to remove: all but the last ones that were the latest."""
    if keep is None or found is None:
        return []
    kept = {found[0]["release"], *found[0]["releases"][:keep]}
    others = [n for n in files.list_folder(files.join(url, RELEASES)) if n not in kept]
    # Some servers of S3 list a folder although its last object was removed.
    return [name for name in others if files.list_objects(publications.release_url(url, name))]


def _remove_releases(url: str, keep: int | None) -> int:
    """Remove surplus releases; return their number."""
    names = _surplus(url, publications.read_latest(url), keep)
    for name in names:
        folder = publications.release_url(url, name)
        files.remove(files.join(folder, MANIFEST))  # first, so that nobody opens it any more
        files.remove(folder)
    return len(names)


def _describe(release: Release) -> str:
    """Return the number and size of the objects of a release, and its last day."""
    objects: Sequence[Json] = release.manifest["objects"]
    size = sum(record["size"] for record in objects)
    day = release.manifest["complete_through"]
    return f"{len(objects)} objects, {size / 1e6:.1f} MB, maps up to {day}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
