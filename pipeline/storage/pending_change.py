"""What is to change of a complete artefact, made aside first, then put in place.

In a folder of its own: `plan.json`, what is to be made; the shards, under the keys of the artefact;
`ready.json` once all of them are there. Until then the artefact is as it was. Then the shards are
copied over its own, and its manifest is written last: whenever a driver dies, the next one either
makes what is missing, or copies again.
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
    """The change of one artefact: `folder` holds it, `place` is where its keys belong."""

    artefact: Artefact
    folder: str
    place: str

    @property
    def _remedy(self) -> str:
        return f"remove {self.folder}, and the change is made again"

    def begin(self, plan: Json) -> None:
        """Go on with what was begun by the same plan for the same artefact; else begin anew."""
        plan = {"of": self._of(), **plan}
        if files.read_json(files.join(self.folder, "plan.json"), self._remedy) != plan:
            self.drop()
            files.write_json(files.join(self.folder, "plan.json"), plan)

    def seal(self, change: Json) -> None:
        """All is made; `change` has its `shards`, and what the manifest shall say."""
        files.write_json(files.join(self.folder, "ready.json"), {"of": self._of(), **change})

    def ready(self) -> Json | None:
        """The change that is made and not yet in place; None where there is none.

        One that is of an artefact that was replaced meanwhile, or is in place, is removed.
        """
        change = files.read_json(files.join(self.folder, "ready.json"), self._remedy)
        if change is not None and change["of"] != self._of():
            self.drop()
            return None
        return change

    def put(self, shards: list[Json]) -> None:
        """Copy shards over those of the artefact; those that are all fill are removed there."""
        for shard in shards:
            target = files.join(self.place, shard["key"])
            if shard["size"]:
                files.copy(files.join(self.folder, shard["key"]), target)
            else:
                files.remove(target)

    def drop(self) -> None:
        """Remove it."""
        files.remove(files.join(self.folder, "ready.json"))  # first, or a half would be put later
        files.remove(self.folder)

    def _of(self) -> str:
        """Digest of the artefact as it is."""
        return files.sha256_of(self.artefact.manifest() or {})
