"""A second copy of an artefact's manifest and of the metadata of its Zarr stores.

These objects are small, and without them all others are worth little: they say what should be
there. `soilweave verify --repair` writes them back if they are missing or damaged. The copy of an
artefact is `backup/{artefact}.json` in the folder of the experiment. It is written after the
manifest, and it has the experiment.yaml of that time too.
"""

from __future__ import annotations

import base64
import binascii
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import DamagedError
from pipeline.storage import records

if TYPE_CHECKING:
    from pipeline.files import Json


FOLDER = "backup"
EXPERIMENT = "experiment.yaml"


def backup_key(artefact: str) -> str:
    """Return the key of the backup of an artefact in the folder of the experiment."""
    return f"{FOLDER}/{artefact}.json"


def write_backup(root: str, artefact: str, manifest: Json) -> None:
    """Copy a manifest and the metadata that it records.

    Args:
      root: URL of the experiment's folder.
      artefact: Name of the artefact.
      manifest: Its manifest, as it was written.

    Raises:
      StoreError: If the copy cannot be written.
    """

    def encode(key: str) -> str | None:
        try:
            return base64.b64encode(files.read_bytes(files.join(root, key))).decode()
        except FileNotFoundError:
            return None

    keys = [EXPERIMENT, *(record["key"] for record in manifest.get("metadata", ()))]
    with ThreadPoolExecutor(records.READERS) as readers:
        encoded = dict(zip(keys, readers.map(encode, keys), strict=True))
    objects = {key: text for key, text in encoded.items() if text is not None}
    backup = records.seal({"manifest": manifest, "objects": objects}, artefact)
    files.write_json(files.join(root, backup_key(artefact)), backup)


def read_backup(root: str, artefact: str) -> tuple[Json, dict[str, bytes]] | None:
    """Return the manifest and the objects of a backup; None if it is missing or damaged."""
    try:
        backup = files.read_json(files.join(root, backup_key(artefact)))
        if backup is None or not records.is_sealed(backup) or records.seal_is_broken(backup):
            return None
        stored = {key: base64.b64decode(text) for key, text in backup["objects"].items()}
    except (DamagedError, KeyError, binascii.Error):
        return None
    return None if backup["artefact"] != artefact else (backup["manifest"], stored)


def remove_backup(root: str, artefact: str) -> None:
    """Remove the backup of an artefact."""
    files.remove(files.join(root, backup_key(artefact)))
