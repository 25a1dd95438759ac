"""Artefacts of schema version 2 as inputs of version 3: all that is needed to keep using them.

In version 2 the digest of a source covered the Python path of its driver, so that it changed when
a driver moved. Version 3 hashes the driver's name instead. Otherwise the two versions are alike:
what was made in version 2 is complete if it was made from the same settings and sources, and it
keeps its version until it is made again. Delete this module, `Digest.version2` with it, once
nothing of version 2 is left to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.files import Json


VERSION = 2


class Digest(str):
    """The digest of a source. `version2` is its digest in version 2."""

    version2: str

    def __new__(cls, digest: str, version2: str = "") -> Digest:
        """A digest, and that of version 2 if there is one."""
        made = super().__new__(cls, digest)
        made.version2 = version2
        return made


def as_recorded(inputs: Json, recorded: Json) -> Json:
    """What an artefact is made from, as a record of version 2 would have it.

    Args:
      inputs: what the artefact is made from, or digests of sources by name.
      recorded: what the record has. If it is of version 3, only digests change that the record has
        from version 2: those of copies of sources, which keep the digest that they were made with.
    """
    is_old = recorded.get("schema") == VERSION
    made = dict(inputs)
    for key, value in inputs.items():
        if isinstance(value, Digest) and (is_old or recorded.get(key) == value.version2):
            made[key] = value.version2
    return made | {"schema": VERSION} if is_old else made
