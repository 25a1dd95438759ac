"""The settings of a recipe: inputs, network, loss and training."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from model.features import SlowFeature
from model.loss import LossConfig
from model.network import NetworkConfig

Arm = Literal["multiscale", "insitu", "satellite"]


class InputsConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The input variables of the network."""

    forcing: Literal["all"] | tuple[str, ...] = Field(
        description="names of forcing variables, or all"
    )
    static: Literal["all"] | tuple[str, ...] = Field(
        description="names of static attributes, or all"
    )
    optional: tuple[str, ...] = Field((), description="variables that the data need not have")
    slow: tuple[SlowFeature, ...] = Field((), description="trailing means derived from the forcing")


class TrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How a model is trained."""

    window_days: int = Field(ge=1, le=36_600, description="days of a window that count in the loss")
    warmup_days: int = Field(
        ge=0, le=36_600, description="days before them that only warm up the state"
    )
    footprints_per_step: int = Field(ge=1, le=100_000, description="footprints drawn per update")
    sites_per_step: int = Field(ge=1, le=100_000, description="sites drawn per update")
    updates: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="number of updates of the weights; alternatively give epochs",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="number of epochs, as published; alternatively give updates",
    )
    optimiser: Literal["adamw", "adadelta"] = Field(
        description="adamw with a one-cycle schedule, or adadelta (rho 0.9) at a constant rate"
    )
    learning_rate: float = Field(gt=0, le=1_000_000, description="peak learning rate")
    weight_decay: float = Field(ge=0, le=10, description="decoupled weight decay")
    gradient_clip: float | None = Field(
        gt=0, le=1_000_000, description="largest norm of the gradient, or null"
    )
    static_noise: float = Field(
        ge=0, le=100, description="sd of the noise on scaled statics, one draw per place and step"
    )
    max_footprints: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="largest number of footprints to train on, evenly spread, to limit the memory",
    )
    mask_ceiling: bool = Field(
        description="ignore satellite values that are stuck at the highest value of a footprint"
    )
    footprint_operator: Literal["outputs", "inputs"] = Field(
        description="outputs: mean of the cells' outputs; inputs: one run on their mean inputs"
    )
    precision: Literal["bf16", "fp32"] = Field(
        description="precision of the forward pass; fp32 on devices that have no LSTM in bf16"
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.updates is None) == (self.epochs is None):
            msg = (
                "give either updates or epochs; "
                f"found updates: {self.updates} and epochs: {self.epochs}"
            )
            raise ValueError(msg)
        return self


class Recipe(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A method: everything that determines a model, given the data."""

    inputs: InputsConfig
    network: NetworkConfig
    loss: LossConfig
    train: TrainConfig

    def insitu_weight(self, arm: Arm) -> float:
        """Return the weight of the in-situ loss in an arm, from 0 to 1."""
        return {"multiscale": self.loss.insitu_weight, "insitu": 1.0, "satellite": 0.0}[arm]

    def sequences(self, arm: Arm, cells_per_footprint: float) -> float:
        """Return the number of sequences that an update of an arm runs, on average."""
        train, weight = self.train, self.insitu_weight(arm)
        cells = 1.0 if train.footprint_operator == "inputs" else cells_per_footprint
        footprints = train.footprints_per_step * cells if weight < 1 else 0.0
        return footprints + (train.sites_per_step if weight > 0 else 0)

    def likelihood(self, arm: Arm) -> bool:
        """Return whether an arm learns the width of its site head."""
        return self.loss.likelihood == "laplace" and self.insitu_weight(arm) > 0


class ModelKey(NamedTuple):
    """Key of one model.

    Attributes:
      arm: observations that the model is trained on.
      fold: the fold of sites that training leaves out; -1 to train on all sites.
      seed: random seed.
    """

    arm: Arm
    fold: int
    seed: int
