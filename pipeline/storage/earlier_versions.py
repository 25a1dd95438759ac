"""Compare artefacts of schema versions 2 and 3 with inputs of version 4.

In version 2 the digest of a source covered the Python path of its driver, so it changed when a
driver moved. Version 3 uses the driver's short name instead.

In versions 2 and 3 cubes and maps count their blocks of 32 days from 1970-01-01, and in version 4
from the first day of the period. Otherwise the versions are alike.

An artefact of an earlier version is complete if it was made from the same settings and sources. It
can be read, scored and published, and it keeps its version until it is made again. Its blocks
cannot be continued or repaired. Delete this module, and `Digest.version2` with it, when no such
artefacts need to be read any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from pipeline.files import Json


VERSION2 = 2
COUNTS_FROM_1970 = (VERSION2, 3)  # versions in which blocks are counted from 1970-01-01
WITHOUT_BLOCKS = ("planet", "folds", "models", "scores", "report")  # artefacts


class Digest(str):
    """The digest of a source.

    Attributes:
      version2: Its digest in schema version 2; "" if there is none.
    """

    version2: str

    def __new__(cls, digest: str, version2: str = "") -> Digest:
        """Create a digest from its text and from the text that it has in version 2."""
        instance = super().__new__(cls, digest)
        instance.version2 = version2
        return instance


def in_recorded_form(inputs: Json, recorded: Json) -> Json:
    """Return inputs in the form that they have in a record of an earlier version.

    Args:
      inputs: The inputs of an artefact, or digests of sources by name.
      recorded: The inputs in the record. In a record of a later version than 2, only digests of
        version 2 are matched: copies of sources keep the digest that they were made with.
    """
    version = recorded.get("schema")
    converted = dict(inputs)
    for key, value in inputs.items():
        matches = version == VERSION2 or recorded.get(key) == getattr(value, "version2", None)
        if isinstance(value, Digest) and matches:
            converted[key] = value.version2
    return converted | {"schema": version} if version in COUNTS_FROM_1970 else converted


def has_other_blocks(artefact: str, record: Json) -> bool:
    """Return whether an artefact is made of blocks that are counted from 1970-01-01.

    Args:
      artefact: Its name.
      record: Its manifest or begun.json.
    """
    version = record["inputs"].get("schema")
    return artefact not in WITHOUT_BLOCKS and version in COUNTS_FROM_1970


def check_same_blocks(url: str, record: Json, what: str, remedy: str) -> None:
    """Check that blocks of an artefact can be continued or repaired.

    Args:
      url: URL of the artefact.
      record: Its manifest.
      what: What cannot be done otherwise, for the message.
      remedy: What to do then.

    Raises:
      StoreError: If an earlier version of soilweave has made it.
    """
    if (version := record["inputs"].get("schema")) in COUNTS_FROM_1970:
        problem = f"has schema version {version}, whose blocks are counted from 1970-01-01, so"
        raise StoreError(url, f"{problem} {what}", remedy=remedy)
