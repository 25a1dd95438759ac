"""Compare artefacts of schema version 2 with inputs of version 3.

In version 2 the digest of a source covered the Python path of its driver, so it changed when a
driver moved. Version 3 uses the driver's short name instead. Otherwise the versions are alike. An
artefact of version 2 is complete if it was made from the same settings and sources, and it keeps
its version until it is made again. Delete this module, and `Digest.version2` with it, when no
artefacts of version 2 need to be read any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.files import Json


VERSION = 2


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


def in_version2_form(inputs: Json, recorded: Json) -> Json:
    """Return inputs in the form that a record of version 2 has.

    Args:
      inputs: The inputs of an artefact, or digests of sources by name.
      recorded: The inputs in the record. In a record of version 3, only digests of version 2 are
        matched: copies of sources keep the digest that they were made with.
    """
    is_version2 = recorded.get("schema") == VERSION
    converted = dict(inputs)
    for key, value in inputs.items():
        if isinstance(value, Digest) and (is_version2 or recorded.get(key) == value.version2):
            converted[key] = value.version2
    return converted | {"schema": VERSION} if is_version2 else converted
