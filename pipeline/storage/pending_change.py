"""Stage a change to a complete artefact in a separate folder, then apply it.

The folder contains `plan.json`, which describes the change; the new shards, under the keys that
they have in the artefact; and `ready.json`, written when all shards exist. Until then the artefact
is not touched. To apply the change, the shards are copied over those of the artefact, and the
manifest of the artefact is written last. If a process dies on the way, the next one either makes
the missing shards or copies them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import files

if TYPE_CHECKING:
    from pipeline.files import Json
    from pipeline.storage.artefacts import Artefact


@dataclass(frozen=True)
class PendingChange:
    """A staged change to one artefact.

    Attributes:
      artefact: The artefact to change.
      folder: URL of the folder with the change.
      place: URL of the folder that the keys of the shards are relative to.
    """

    artefact: Artefact
    folder: str
    place: str

    @property
    def _hint(self) -> str:
        return f"remove {self.folder} and run again; the change is then made again"

    def begin(self, plan: Json) -> None:
        """Continue a change with the same plan for the same artefact; otherwise start a new one."""
        plan = {"of": self._artefact_digest(), **plan}
        if files.read_json(files.join(self.folder, "plan.json"), self._hint) != plan:
            self.drop()
            files.write_json(files.join(self.folder, "plan.json"), plan)

    def seal(self, change: Json) -> None:
        """Mark the change as ready to apply.

        Args:
          change: Records of its `shards`, and the new values of the manifest.
        """
        record = {"of": self._artefact_digest(), **change}
        files.write_json(files.join(self.folder, "ready.json"), record)

    def ready(self) -> Json | None:
        """Return the change that is ready but not yet applied, or None.

        A change that was already applied, or whose artefact was replaced in the meantime, is
        removed.
        """
        change = files.read_json(files.join(self.folder, "ready.json"), self._hint)
        if change is not None and change["of"] != self._artefact_digest():
            self.drop()
            return None
        return change

    def put(self, shards: list[Json]) -> None:
        """Copy shards over those of the artefact; remove there those that are all fill."""
        for shard in shards:
            target = files.join(self.place, shard["key"])
            if shard["size"]:
                files.copy(files.join(self.folder, shard["key"]), target)
            else:
                files.remove(target)

    def drop(self) -> None:
        """Remove the change."""
        # `ready.json` is removed first: if the removal is interrupted, the rest is never applied.
        files.remove(files.join(self.folder, "ready.json"))
        files.remove(self.folder)

    def _artefact_digest(self) -> str:
        """Return the digest of the artefact's present manifest."""
        return files.sha256_of_json(self.artefact.manifest() or {})
