"""What became of the items that were to be logged, and the line about it for the user."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What could not be logged in one attempt.

    Attributes:
      page: Where the run is seen.
      failed: Items that the next run tries again, with the reason.
      refused: Items that are not tried again, with the reason.
      refused_keys: Keys of parameters and metrics that the server does not accept, with the reason.
      remaining: Items that were not reached.
      stopped: Why they were not reached.
    """

    page: str
    failed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    refused_keys: dict[str, str] = field(default_factory=dict)
    remaining: list[str] = field(default_factory=list)
    stopped: str = ""

    def line(self) -> str:
        """Return one line: where the run is, what is missing there, and what becomes of it."""
        parts = [f"logged to {self.page}"]
        if self.stopped:
            left = join_items(self.remaining)
            parts = [f"{self.page} {self.stopped}; the next run logs {left or 'what is missing'}"]
        if self.failed:
            parts.append(f"the next run tries again: {_with_reasons(self.failed)}")
        if self.refused:
            parts.append(
                f"cannot be logged there, and is not tried again: {_with_reasons(self.refused)}"
            )
        if self.refused_keys:
            parts.append(f"keys that it does not accept: {_with_reasons(self.refused_keys)}")
        return "; ".join(parts)


def join_items(names: list[str]) -> str:
    """Return the names of items in a list, in which curves are only counted."""
    curves = [name for name in names if "/fold=" in name]
    shown = [name for name in names if name not in curves]
    if curves:
        shown.append("1 training curve" if len(curves) == 1 else f"{len(curves)} training curves")
    return ", ".join(shown)


def _with_reasons(reasons: dict[str, str]) -> str:
    """Return names with the reason of each, those that have the same reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return ", ".join(f"{join_items(some)} ({reason})" for reason, some in names.items())
