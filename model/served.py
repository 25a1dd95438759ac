"""An arm's product as one object: raw inputs in, mean and standard deviation out.

A `loader_module` of MLflow's pyfunc: what `mlflow.pyfunc.load_model` gives calls it. It needs this
package alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model import checkpoint
from model.calibration import Calibration
from model.predict import predict, product
from model.sampling import Places

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.checkpoint import Trained

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Product:
    """The members of an ensemble and their calibration, of the models of all sites."""

    members: list[Trained]
    calibration: Calibration

    @classmethod
    def load(cls, folder: Path) -> Product:
        """From a folder with every member as `*.safetensors` and its calibration.

        Raises:
          ValueError: a checkpoint is damaged.
        """
        paths = sorted(folder.glob("*.safetensors"))
        members = [checkpoint.load(path.read_bytes()) for path in paths]
        return cls(members, Calibration(**json.loads((folder / CALIBRATION).read_text())))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the features of the input, in order: forcing, then static attributes."""
        features = self.members[0].features
        return features.forcing + features.static

    def example(self, n_days: int) -> NDArray[np.float32]:
        """(1, n_days, feature) input of a place that is average in everything."""
        mean, _ = self.members[0].scaler.arrays(self.inputs)
        return np.tile(mean, (1, n_days, 1))

    def predict(
        self, model_input: NDArray[np.float32], params: dict[str, Any] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The product at places, after a spin-up over the first year of the series, repeated.

        Args:
          model_input: (batch, time, feature) daily values in our units, in the order of `inputs`;
            NaN where missing; a static attribute is read from the first day.
          params: not used; MLflow passes it.

        Returns:
          {"mean", "std"}, each (batch, time) in the target's unit.

        Raises:
          ValueError: another number of dims or features.
        """
        given = np.asarray(model_input, np.float32)
        if given.ndim != 3 or given.shape[2] != len(self.inputs):
            wanted = f"(batch, time, {len(self.inputs)}): {', '.join(self.inputs)}"
            msg = f"input has shape {given.shape}, expected {wanted}"
            raise ValueError(msg)
        series = [predict(member, self._places(member, given)) for member in self.members]
        mean, std = product(series, self.members[0].heads, self.calibration.level_weight)
        return {"mean": mean, "std": std * np.float32(self.calibration.width_scale)}

    def _places(self, member: Trained, given: NDArray[np.float32]) -> Places:
        """Inputs as a member wants them: scaled, forcing in two bytes."""
        n = len(member.features.forcing)
        mean, std = member.scaler.arrays(member.features.forcing)
        forcing = ((given[:, :, :n] - mean) / std).astype(np.float16)
        mean, std = member.scaler.arrays(member.features.static)
        static = ((given[:, 0, n:] - mean) / std).astype(np.float32)
        return Places.of(forcing, static, "cpu")


def _load_pyfunc(data_path: str) -> Product:
    """What MLflow calls to load the model."""
    return Product.load(Path(data_path))
