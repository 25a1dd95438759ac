"""What happens in one loop of `make soak`, drawn from its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

STORE_FAULTS = ("busy", "slow", "cut", "lost")  # those of tests/fixtures/s3_proxy.py
MLFLOW = ("as usual", "away", "silent", "refusing")
STOPS = ("SIGKILL", "SIGTERM", "SIGINT", "worker killed", "second driver")
DAMAGES = ("flipped", "truncated", "deleted", "exchanged")


@dataclass(frozen=True)
class Plan:
    """The faults of a loop.

    Attributes:
      seed: All else follows from it.
      bucket: Whether the workspace lies in a bucket, behind a proxy.
      store: What the proxy does to one request in twenty, of STORE_FAULTS.
      mlflow: What the MLflow server does, of MLFLOW.
      stops: Of each disturbed run: what happens, of STOPS, once this share of the objects of a
        finished workspace is there.
      damages: Of each object that is damaged in the end: how, of DAMAGES, and which, as a share
        of the sorted list of objects.
    """

    seed: int
    bucket: bool
    store: tuple[str, ...]
    mlflow: str
    stops: tuple[tuple[str, float], ...]
    damages: tuple[tuple[str, float], ...]

    def __str__(self):
        """One line of it."""
        where = f"a bucket that is {', '.join(self.store)}" if self.bucket else "a folder"
        stops = (f"{what} at {share:.0%}" for what, share in self.stops)
        damages = (f"{how} object at {share:.0%}" for how, share in self.damages)
        return ", ".join([where, f"MLflow {self.mlflow}", *stops, *damages])

    def kinds(self):
        """The names of all faults, each as often as it is in the loop."""
        mlflow = [f"MLflow {self.mlflow}"] if self.mlflow != MLFLOW[0] else []
        stops = [what for what, _ in self.stops]
        return [*(f"store {what}" for what in self.store), *mlflow, *stops] + [
            f"object {how}" for how, _ in self.damages
        ]


def draw(seed):
    """The plan of a seed."""
    rng = random.Random(seed)
    bucket = rng.random() < 0.5
    store = tuple(sorted(rng.sample(STORE_FAULTS, rng.randint(1, 3)))) if bucket else ()
    mlflow = rng.choice(MLFLOW)
    stops = tuple((rng.choice(STOPS), rng.random()) for _ in range(rng.randint(1, 3)))
    damages = tuple((rng.choice(DAMAGES), rng.random()) for _ in range(rng.randint(0, 3)))
    return Plan(seed, bucket, store, mlflow, stops, damages)
