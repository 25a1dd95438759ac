"""A row of the table: what was measured, beside what, what is aimed at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from bench.measure import ratio as measure_ratio
from bench.measure import spread


@dataclass(frozen=True)
class Aim:
    """At least, or at most, so much: of the ratio to what stands beside, or of the value.

    With a `floor` it must not be under that either.
    """

    number: float
    least: bool = True
    of_ratio: bool = True
    floor: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table; samples are of the unit, those beside too.

    `limit` says what the machine itself could do at most, in the same unit, `limit_of` what of it.
    `way` is what stands in the way where the aim is missed.
    """

    section: str
    what: str
    unit: str
    samples: list[float]
    beside: str = ""
    beside_samples: list[float] = field(default_factory=list)
    aim: Aim | None = None
    limit_of: str = ""
    limit: list[float] = field(default_factory=list)
    way: str = ""
    note: str = ""

    @property
    def ratio(self):
        """Spread of the ratio to what stands beside; None where nothing does."""
        return measure_ratio(self.samples, self.beside_samples) if self.beside_samples else None

    @property
    def share(self):
        """Which part of the machine's own limit was reached, None where none is known."""
        return measure_ratio(self.samples, self.limit).median if self.limit else None

    @property
    def missed(self):
        """By which factor the aim is missed: 0 where it is met, None where there is none."""
        if self.aim is None:
            return None
        judged = self.ratio if self.aim.of_ratio else spread(self.samples)
        over = judged.median / self.aim.number
        if not self.aim.least:
            over = 1 / over
        if self.aim.floor is not None:
            over = min(over, judged.median / self.aim.floor)
        return 0.0 if over >= 1 else 1 / over - 1

    def as_dict(self):
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """Inverse of `as_dict`."""
        aim = values["aim"]
        return cls(**values | {"aim": None if aim is None else Aim(**aim)})
