"""A queue that hands out the numbers of work items, so that whoever is free takes the next one.

It runs as a Ray actor, which knows numbers only and therefore imports nothing that is large.

What is finished is what the workspace holds, and not what the queue remembers. When Ray Train has
replaced its workers, the new ones take every item once more and skip what is finished. The same
happens if the process of the queue is lost: Ray starts it again, and items that somebody is already
working on may be handed out twice, which costs time but loses nothing.
"""

from __future__ import annotations

from typing import Any


class Turns:
    """Hands out the numbers 0 to `size` - 1 in order. It runs as a Ray actor, see `start`."""

    def __init__(self, size: int) -> None:
        """Hold the number of items."""
        self.size = size
        self.taken: dict[str, dict[tuple[int, int], int]] = {}

    def take(self, attempt: str, rank: int, turn: int) -> int | None:
        """Return the number of the next item, or None if none is left.

        The same question has the same answer, because Ray asks again if an answer may be lost.

        Args:
          attempt: Name of the group of workers that asks. Each is handed all items, because what
            its predecessor took may have been lost with it.
          rank: The worker's rank.
          turn: How many items this worker has taken before.
        """
        taken = self.taken.setdefault(attempt, {})
        number = taken.setdefault((rank, turn), len(taken))
        return number if number < self.size else None


def start(size: int) -> Any:
    """Start a queue on the driver's node, and return its actor.

    It lives as long as the driver, without which the run ends anyway.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_this_node = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Turns)
    return actor.options(scheduling_strategy=on_this_node).remote(size)
