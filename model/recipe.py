"""A recipe: what the network sees, its shape, what is minimised and how."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from model.features import SlowFeature
from model.loss import LossConfig
from model.network import NetworkConfig

Arm = Literal["multiscale", "insitu", "satellite"]


class InputsConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What the network sees."""

    forcing: Literal["all"] | tuple[str, ...] = Field(description="forcing, by our names, or all")
    static: Literal["all"] | tuple[str, ...] = Field(description="statics, by our names, or all")
    optional: tuple[str, ...] = Field((), description="variables the data may lack")
    slow: tuple[SlowFeature, ...] = Field((), description="trailing means, derived on the fly")


class TrainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How a model is trained."""

    window_days: int = Field(
        ge=1, le=36_600, description="days of a window on which the loss is taken"
    )
    warmup_days: int = Field(
        ge=0, le=36_600, description="days before them that only warm the state"
    )
    footprints_per_step: int = Field(ge=1, le=100_000, description="footprints drawn per update")
    sites_per_step: int = Field(ge=1, le=100_000, description="sites drawn per update")
    updates: int | None = Field(
        None, ge=1, le=100_000_000, description="updates of the weights; or give epochs"
    )
    epochs: int | None = Field(
        None, ge=1, le=1_000_000, description="epochs as published; or give updates"
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
        description="learn from so many footprints, evenly spread, where memory holds no more",
    )
    mask_ceiling: bool = Field(description="leave out values stuck at a footprint's ceiling")
    footprint_operator: Literal["outputs", "inputs"] = Field(
        description="mean of the cells' outputs, or one pass on their mean inputs"
    )
    precision: Literal["bf16", "fp32"] = Field(description="precision of the forward pass")

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.updates is None) == (self.epochs is None):
            msg = f"give updates or epochs, one of them; found {self.updates} and {self.epochs}"
            raise ValueError(msg)
        return self


class Recipe(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A method: everything that makes a model of data."""

    inputs: InputsConfig
    network: NetworkConfig
    loss: LossConfig
    train: TrainConfig

    def insitu_weight(self, arm: Arm) -> float:
        """Share of the in-situ loss in an arm."""
        return {"multiscale": self.loss.insitu_weight, "insitu": 1.0, "satellite": 0.0}[arm]

    def likelihood(self, arm: Arm) -> bool:
        """Whether an arm learns the width of its site head."""
        return self.loss.likelihood == "laplace" and self.insitu_weight(arm) > 0


class Job(NamedTuple):
    """One model: an arm, the fold it leaves out (-1: none, all sites train it), a seed."""

    arm: Arm
    fold: int
    seed: int
