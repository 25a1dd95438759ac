"""How much a source is, from what its catalog says of its objects: nothing is opened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import catalog, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import Experiment
    from pipeline.files import Json


class Volume(NamedTuple):
    """Objects that must be read, their bytes, and how well that is known.

    `blocks` is how many blocks of 32 days an object spans: whoever reads one block after the
    other, as `prepare` does without a copy, reads it so many times.
    """

    requests: int
    megabytes: float
    basis: str
    blocks: int


def of(experiment: Experiment, entry: str) -> Volume | None:
    """What the experiment's window and period take of an entry; None where that is not said.

    `metadata.volume` says: `days` of one object (0 for constants), `degrees` of latitude and
    longitude it spans (the whole region without), whether it holds one `variable` or `all`, its
    `megabytes` as stored, and the `basis` of these figures.
    """
    spec = catalog.find(experiment.sources.catalog, entry).spec
    said = (spec.get("metadata") or {}).get("volume")
    if not said:
        return None
    objects = _in_time(experiment, float(said["days"])) * _in_space(experiment, said.get("degrees"))
    if said.get("per") == "variable":
        objects *= len(_variables(spec))
    size, basis = objects * float(said["megabytes"]), str(said.get("basis", "estimated"))
    chunked = said.get("degrees") and said.get("per") == "variable"
    blocks = math.ceil(float(said["days"]) / schema.BLOCK_DAYS) if chunked else 1
    return Volume(objects, size, basis, max(1, blocks))


def told(experiment: Experiment, entries: Sequence[str]) -> str:
    """One line: bytes and requests of some entries together, and what is not known."""
    known = {entry: of(experiment, entry) for entry in entries}
    volumes = [v for v in known.values() if v is not None]
    requests, megabytes = sum(v.requests for v in volumes), sum(v.megabytes for v in volumes)
    line = f"about {size(megabytes)} in {requests:,} requests" if volumes else "bytes and requests"
    unknown = [entry for entry, v in known.items() if v is None]
    join = "; not known of " if volumes else " not known of "
    return line + join + ", ".join(unknown) if unknown else line


def size(megabytes: float) -> str:
    """Megabytes for people."""
    if megabytes < 1000:
        return f"{megabytes:.1f} MB"
    return f"{megabytes / 1000:,.1f} GB"


def _in_time(experiment: Experiment, days: float) -> int:
    first, last = experiment.period
    return math.ceil(((last - first).days + 1) / days) if days else 1


def _in_space(experiment: Experiment, degrees: Sequence[float] | None) -> int:
    if not degrees:
        return 1
    box = experiment.domain
    spans = (
        (box.south_degrees, box.north_degrees, degrees[0]),
        (box.west_degrees, box.east_degrees, degrees[1]),
    )
    return math.prod(math.ceil(high / d) - math.floor(low / d) for low, high, d in spans)


def _variables(spec: Json) -> set[Any]:
    """The provider's variables that a mapping reads."""
    mapping = spec["args"]["mapping"]
    parts = mapping if isinstance(mapping, list) else [mapping]
    named = [item["from"] for part in parts for item in part.values()]
    return {name for item in named for name in (item if isinstance(item, list) else [item])}
