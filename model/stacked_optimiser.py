"""Update the weights of several models at once, in operations that a CUDA graph can record.

The optimisers of torch take their rates as numbers, which a recorded graph would repeat for ever.
Here, the rates of each update are computed on the host by torch's own optimiser and schedule, and
moved to the device with the batches. State is read and handed back in the form of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from model.trainer import load_optimiser_state, make_optimiser, optimiser_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from model.network import StackedNetwork
    from model.recipe import TrainConfig


SLOTS = {"adamw": ("exp_avg", "exp_avg_sq"), "adadelta": ("square_avg", "acc_delta")}


class StackedOptimiser:
    """The optimiser of a recipe for the weights of a stacked network.

    Attributes:
      slots: (model, weight) running means by name, like the network's `flat`.
    """

    def __init__(
        self,
        network: StackedNetwork,
        train: TrainConfig,
        updates: int,
        tensors: Mapping[str, Tensor],
        values: dict[str, Any],
    ) -> None:
        """Take over the state of single models.

        Args:
          network: the stacked network.
          train: settings of the training.
          updates: number of updates planned.
          tensors: state of the optimisers of single models, stacked to (model, ...).
          values: JSON values of that state, which all of the models share.
        """
        self.network, self.train, self.step = network, train, int(values["step"])
        names = [name for name, _ in network.named_parameters()]
        self._index = {name: names.index(name) for name in network.trained}
        # Weights without a gradient, for the rates alone.
        numbers = [torch.zeros(()) for _ in names]
        self._rates, self._schedule = make_optimiser(numbers, train, updates)
        load_optimiser_state(self._rates, self._schedule, {}, values)
        self.slots = {slot: torch.zeros_like(network.flat) for slot in SLOTS[train.optimiser]}
        for slot, flat in self.slots.items():
            for name, view in network.views(flat).items():
                key = f"optimiser.{self._index[name]}.{slot}"
                if key in tensors:
                    view.copy_(tensors[key])

    @property
    def learning_rate(self) -> float:
        """Return the learning rate of the next update."""
        return float(self._rates.param_groups[0]["lr"])

    def next_rates(self) -> list[float]:
        """Return the numbers that `update` takes for the next update, and go on to the one after.

        For AdamW: the factor of weight decay, the weight of a gradient in its mean, and the
        corrections of both means for their start from zero, times the learning rate.
        """
        self.step += 1
        group, rate = self._rates.param_groups[0], self.learning_rate
        if self.train.optimiser == "adadelta":
            rates = [rate]
        else:
            first, second = (1 - beta**self.step for beta in group["betas"])
            rates = [1 - rate * group["weight_decay"], 1 - group["betas"][0], rate / first]
            rates.append(second**0.5)
        self._rates.step()
        if self._schedule:
            self._schedule.step()
        return rates

    @torch.no_grad()
    def update(self, gradient: Tensor, rates: Tensor) -> None:
        """Update all weights.

        Args:
          gradient: (model, weight) gradient, like the network's `flat`.
          rates: what `next_rates` has returned, on the device.
        """
        weights, group = self.network.flat, self._rates.param_groups[0]
        one, other = self.slots.values()
        if self.train.optimiser == "adadelta":
            rho, eps = group["rho"], group["eps"]
            gradient = gradient + group["weight_decay"] * weights
            one.mul_(rho).addcmul_(gradient, gradient, value=1 - rho)
            change = gradient * (other + eps).sqrt() / (one + eps).sqrt()
            other.mul_(rho).addcmul_(change, change, value=1 - rho)
            weights.sub_(rates[0] * change)
        else:
            decay, share, size, correction = rates.unbind()
            beta, eps = group["betas"][1], group["eps"]
            weights.mul_(decay)
            one.lerp_(gradient, share)
            other.mul_(beta).addcmul_(gradient, gradient, value=1 - beta)
            weights.sub_(size * one / (other.sqrt() / correction + eps))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return stacked tensors and JSON values in the form of the optimiser of a single model."""
        _, values = optimiser_state(self._rates, self._schedule)
        tensors = {
            f"optimiser.{self._index[name]}.{slot}": view
            for slot, flat in self.slots.items()
            for name, view in self.network.views(flat).items()
        }
        steps = torch.tensor(float(self.step))
        return tensors | {f"optimiser.{i}.step": steps for i in self._index.values()}, values


def clip_gradients(gradients: Sequence[Tensor], limit: float | None) -> tuple[Tensor, Tensor]:
    """Clip the gradient of each model, as `clip_grad_norm_` does for a single one.

    It is clipped out of place: two weights that are added, like the biases of the LSTM, may have
    one tensor as their gradient.

    Args:
      gradients: (model, ...) gradients of the weights.
      limit: largest norm of a model's gradient; None for no limit.

    Returns:
      (model, weight) clipped gradients, and (model,) norms before clipping.
    """
    joined = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
    norm = joined.norm(dim=1)
    if limit is None:
        return joined, norm
    return joined * (limit / (norm + 1e-6)).clamp(max=1.0)[:, None], norm
