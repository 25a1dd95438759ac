"""Bring the objects of a release to its place, and verify them there.

What an earlier release has already is copied on the server; only the rest is read and sent.

A record of an object in a release has its `key`, `size` and `sha256`, and its `tag`: what the store
lists as its ETag, "" for local files. On S3 the tag of an object that was sent in one piece is the
MD5 that the store has computed, and a copy has the same. It is another value for objects of 100 MB
and more, and for those that are encrypted with a key of one's own.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import StoreError
from pipeline.storage.publications import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.publish.content import Item
    from pipeline.storage.publications import Release


CONNECTIONS = 8  # objects that are sent, copied or read at a time
SENT, COPIED, KEPT = "sent", "copied", "kept"


@dataclass(frozen=True)
class Done:
    """How an object came to its place.

    Attributes:
      item: The object.
      how: SENT, COPIED, or KEPT if an interrupted run had left it there.
      tag: The tag that the store should list, if nothing happened on the way.
    """

    item: Item
    how: str
    tag: str


def transfer(
    items: Sequence[Item], target: str, earlier: Release | None, progress: Progress
) -> list[Done]:
    """Complete the objects of a release.

    Args:
      items: All objects of the release.
      target: URL of the folder of the release, which may have some of them. What does not belong
        to the release is removed.
      earlier: A release in the same store, whose objects are copied.
      progress: Receives the number of objects done.

    Raises:
      StoreError: If an object cannot be read or written.
    """
    present = files.list_details(target)
    for key in present.keys() - {item.key for item in items} - {MANIFEST}:
        files.remove(files.join(target, key))
    copies = intact_objects(earlier) if earlier is not None else {}

    def complete(item: Item) -> Done:
        url, there = files.join(target, item.key), present.get(item.key)
        if there is not None and _size(there) != item.size:
            files.remove(url)
            there = None
        if (copy := copies.get(item.sha256)) is not None:
            source, tag = copy
            if there is not None and _has_content(url, there, item, tag):
                return Done(item, KEPT, tag)
            if there is not None:
                files.remove(url)
            files.copy(source, url, link=True)
            return Done(item, COPIED, tag)
        data = item.read()
        tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if there is not None and _has_content(url, there, item, tag):
            return Done(item, KEPT, tag)
        files.write_bytes(url, data)
        return Done(item, SENT, tag)

    return _in_parallel(complete, items, progress)


def summary_line(done: Sequence[Done]) -> str:
    """Return a phrase with the number of objects that were sent, copied and kept."""
    by = {how: [each for each in done if each.how == how] for how in (SENT, COPIED, KEPT)}
    sent_bytes = sum(each.item.size for each in by[SENT])
    parts = [f"{len(by[SENT])} objects sent ({sent_bytes / 1e6:.1f} MB)"]
    parts += [f"{len(by[COPIED])} copied there"] if by[COPIED] else []
    parts += [f"{len(by[KEPT])} kept of an interrupted run"] if by[KEPT] else []
    return ", ".join(parts)


def verify_objects(done: Sequence[Done], target: str) -> list[Json]:
    """Verify the objects of a release where they are, and return their records.

    The sizes come from a listing. The content is verified by the tag in the listing. Where that is
    not the expected one, the object is read back and its SHA-256 is compared. Local files that are
    links to those of an earlier release are the same files, so their size is enough.

    Args:
      done: All objects.
      target: URL of the folder of the release.

    Raises:
      StoreError: If an object differs.
    """
    listed, local = files.list_details(target), "://" not in target
    problems, doubtful = [], []
    for each in done:
        found = listed.get(each.item.key)
        if found is None:
            problems.append(f"{each.item.key}: missing")
        elif _size(found) != each.item.size:
            problems.append(f"{each.item.key}: {_size(found)} bytes, expected {each.item.size}")
        elif _tag(found) != each.tag and not (local and each.how == COPIED):
            doubtful.append(each.item)
    with ThreadPoolExecutor(CONNECTIONS) as readers:
        urls = [files.join(target, item.key) for item in doubtful]
        digests = list(readers.map(files.sha256_of_object, urls))
    problems += [
        f"{item.key}: its SHA-256 differs from what was sent"
        for item, (_, digest) in zip(doubtful, digests, strict=True)
        if digest != item.sha256
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        problem = f"is not what was sent: {'; '.join(problems[:3])}{more}"
        hint = "the latest release is as before; publish again, which sends these once more"
        raise StoreError(target, problem, remedy=hint)
    items = (each.item for each in done)
    return [
        {"key": i.key, "size": i.size, "sha256": i.sha256, "tag": _tag(listed[i.key])}
        for i in items
    ]


def intact_objects(release: Release) -> dict[str, tuple[str, str]]:
    """Return the URL and the tag of each object of a release that is as recorded, by SHA-256.

    Sizes and tags are compared, from a listing.
    """
    listed = files.list_details(release.url)
    return {
        record["sha256"]: (files.join(release.url, key), record["tag"])
        for key, record in release.objects.items()
        if key in listed
        and (_size(listed[key]), _tag(listed[key])) == (record["size"], record["tag"])
    }


def _has_content(url: str, found: Json, item: Item, tag: str) -> bool:
    """Return whether an object that is there has the content of an item of the same size."""
    if _tag(found):
        return _tag(found) == tag
    return files.sha256_of_object(url)[1] == item.sha256


def _size(found: Json) -> int:
    return int(found.get("size") or 0)


def _tag(found: Json) -> str:
    return str(found.get("ETag") or "").strip('"')


def _in_parallel(
    complete: Callable[[Item], Done], items: Sequence[Item], progress: Progress
) -> list[Done]:
    """Return the results for all items; after an error, what has not begun is not done."""
    pool = ThreadPoolExecutor(CONNECTIONS)
    try:
        waiting = [pool.submit(complete, item) for item in items]
        for finished in as_completed(waiting):
            finished.result()
            progress.advance()
        return [each.result() for each in waiting]
    finally:
        pool.shutdown(cancel_futures=True)
