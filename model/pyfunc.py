"""An ensemble as one MLflow model: raw inputs in, mean and standard deviation out.

The module is the `loader_module` of MLflow's pyfunc flavor, which `mlflow.pyfunc.load_model` calls.
It depends on this package only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model import checkpoint
from model.calibration import Calibration
from model.ensemble import combine_members, predict_series
from model.sampling import Places

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel


CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class ProductModel:
    """An ensemble of models trained on all sites, with its calibration.

    Attributes:
      members: the members of the ensemble.
      calibration: level weight and width scale of the product.
    """

    members: list[TrainedModel]
    calibration: Calibration

    @classmethod
    def load(cls, folder: Path) -> ProductModel:
        """Read the members (`*.safetensors`) and the calibration from a folder.

        Raises:
          ValueError: If a checkpoint is damaged.
        """
        paths = sorted(folder.glob("*.safetensors"))
        members = [checkpoint.model_from_bytes(path.read_bytes()) for path in paths]
        return cls(members, Calibration(**json.loads((folder / CALIBRATION_FILE).read_text())))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of the input features, in order: forcing, then static attributes."""
        features = self.members[0].features
        return features.forcing + features.static

    def example(self, n_days: int) -> NDArray[np.float32]:
        """Return a (1, n_days, feature) input with the mean of every feature."""
        mean, _ = self.members[0].scaler.arrays(self.inputs)
        return np.tile(mean, (1, n_days, 1))

    def predict(
        self, model_input: NDArray[np.float32], params: dict[str, Any] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Predict the product at places, after a spin-up over the first year of the series.

        Args:
          model_input: (batch, time, feature) daily values in soilweave's units, with features in
            the order of `inputs`; NaN where missing. Static attributes are read from the first day.
          params: not used; MLflow passes it.

        Returns:
          {"mean", "std"}, (batch, time) each, in the target's unit.

        Raises:
          ValueError: If the input has another number of dimensions or features.
        """
        values = np.asarray(model_input, np.float32)
        if values.ndim != 3 or values.shape[2] != len(self.inputs):
            expected = f"(batch, time, {len(self.inputs)}): {', '.join(self.inputs)}"
            msg = f"input has shape {values.shape}, expected {expected}"
            raise ValueError(msg)
        series = [predict_series(member, self._places(member, values)) for member in self.members]
        mean, std = combine_members(series, self.members[0].heads, self.calibration.level_weight)
        return {"mean": mean, "std": std * np.float32(self.calibration.width_scale)}

    def _places(self, member: TrainedModel, values: NDArray[np.float32]) -> Places:
        """Return the inputs as a member needs them: scaled, with forcing in float16."""
        n = len(member.features.forcing)
        mean, std = member.scaler.arrays(member.features.forcing)
        forcing = ((values[:, :, :n] - mean) / std).astype(np.float16)
        mean, std = member.scaler.arrays(member.features.static)
        static = ((values[:, 0, n:] - mean) / std).astype(np.float32)
        return Places.from_arrays(forcing, static, "cpu")


def _load_pyfunc(data_path: str) -> ProductModel:
    """Load the model; called by MLflow."""
    return ProductModel.load(Path(data_path))
