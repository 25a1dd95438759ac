"""What is known of the product of an arm, for its description in MLflow and for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.recipe import ModelKey
from pipeline.storage import models

if TYPE_CHECKING:
    from model.recipe import Arm
    from pipeline.experiment.config import Experiment


@dataclass(frozen=True)
class ProductFacts:
    """What the product of an arm was made from.

    Attributes:
      seeds: The seeds of its members.
      satellite: The catalog entry with the footprints that it has learnt from; None for none.
      insitu: The catalog entries with the sites that it has learnt from.
      n_sites: The number of these sites.
      inputs: The catalog entries with its inputs.
    """

    seeds: tuple[int, ...]
    satellite: str | None
    insitu: tuple[str, ...]
    n_sites: int
    inputs: tuple[str, ...]

    def learnt_from(self) -> list[str]:
        """Return a phrase for each kind of observation."""
        phrases = [f"footprints: {self.satellite}"] if self.satellite else []
        sites = f"sites: {', '.join(self.insitu)} ({self.n_sites})"
        return [*phrases, sites] if self.insitu else phrases


def read_facts(experiment: Experiment, root: str, arm: Arm) -> ProductFacts:
    """Read the facts from an experiment and its models.

    Args:
      experiment: The experiment.
      root: URL of the folder of the models.
      arm: The arm.

    Raises:
      DamagedError: If a model cannot be read.
    """
    sources, seeds = experiment.sources, models.list_seeds(root, arm)
    first = models.load_model(root, ModelKey(arm, models.ALL_SITES, seeds[0]))
    return ProductFacts(
        tuple(seeds),
        None if arm == "insitu" else sources.satellite,
        () if arm == "satellite" else sources.insitu,
        len(first.origin["training_sites"]),
        tuple(dict.fromkeys((*sources.forcing, *sources.static))),
    )
