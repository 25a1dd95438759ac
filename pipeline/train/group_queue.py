"""The queue from which workers take the next group of models to train.

Which models make up a group, and the order of the groups, follow from the experiment alone. Only
who trains a group depends on the cluster: a worker takes the next one when it has finished its last
one, so a slow worker holds nobody up.

What is trained is what the workspace holds, and not what the queue remembers. When Ray Train has
replaced its workers, the new ones take every group once more and skip the models that are finished.
The same happens if the process of the queue is lost: Ray starts it again, and groups that somebody
is already training may be handed out twice, which costs time but loses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.recipe import ModelKey


class GroupQueue:
    """Hands out groups of models in order. It runs as a Ray actor, see `start_queue`."""

    def __init__(self, groups: Sequence[Sequence[ModelKey]]) -> None:
        """Hold `groups`, the most expensive ones first."""
        self.groups = [list(group) for group in groups]
        self.taken: dict[str, dict[tuple[int, int], int]] = {}

    def take(self, attempt: str, rank: int, turn: int) -> list[ModelKey]:
        """Return the next group, or an empty list if none is left.

        The same question has the same answer, because Ray asks again if an answer may be lost.

        Args:
          attempt: Name of the group of workers that asks. Each is handed all groups of models,
            because what its predecessor took may have been lost with it.
          rank: The worker's rank.
          turn: How many groups of models this worker has taken before.
        """
        taken = self.taken.setdefault(attempt, {})
        position = taken.setdefault((rank, turn), len(taken))
        return self.groups[position] if position < len(self.groups) else []


def start_queue(groups: Sequence[Sequence[ModelKey]]) -> Any:
    """Start a queue on the driver's node, and return its actor.

    It lives as long as the driver, without which the run ends anyway.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_this_node = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(GroupQueue)
    return actor.options(scheduling_strategy=on_this_node).remote(list(groups))
