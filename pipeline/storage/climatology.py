"""Form of the layers that compare each day of the maps with a fixed reference period.

They are variables (time, y, x) of maps/{arm}.zarr, in the root and in `series`, if the reference
period has at least three years:
  `{target}_percentile` int16, in steps of 0.1 %: where the value lies among those of its season.
  `{target}_anomaly` int16, packed as the value: its difference from their mean.
The attribute `reference_period` of the root names the period, or says why there are no such layers.

The reference is that of the first maps, and no update changes it. So state/{arm}.zarr has:
  `reference` int16 (time, y, x): the values, as first mapped, on those days of the reference period
    that an update may revise, because the state before them is kept; absent if there are none.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from model import climatology
from pipeline.dates import period_as_text
from pipeline.storage import zarr_arrays

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json

    Period = tuple[date, date]


ATTRIBUTE = "reference_period"  # of the root
PERCENTILE, ANOMALY = "percentile", "anomaly"  # what the names end with, after that of the target
PERCENTILE_STEP = 0.1  # in %
NO_LAYERS = "no percentiles and anomalies"


def layer_names(target: str) -> tuple[str, str]:
    """Return the names of the percentile and of the anomaly of a variable."""
    return f"{target}_{PERCENTILE}", f"{target}_{ANOMALY}"


def reference_period(experiment: Experiment) -> Period | None:
    """Return the reference period of new maps; None if it has less than three years."""
    period = experiment.reference_period or experiment.period
    return period if climatology.is_long_enough(period) else None


def stored_reference(url: str) -> Period | None:
    """Return the reference period of an arm's maps; None if they do not have these layers.

    Args:
      url: URL of the maps.

    Raises:
      DamagedError: If the metadata exist but cannot be decoded.
    """
    text = str(zarr_arrays.read_attributes(url).get(ATTRIBUTE, NO_LAYERS))
    if text.startswith(NO_LAYERS):
        return None
    first, last = map(date.fromisoformat, text.split(".."))
    return first, last


def describe_period(experiment: Experiment) -> str:
    """Return the attribute `reference_period` of new maps."""
    period = period_as_text(experiment.reference_period or experiment.period)
    if reference_period(experiment) is not None:
        return period
    return f"{NO_LAYERS}, because {period} has less than {climatology.MIN_YEARS} years"


def describe_variables(experiment: Experiment, common: Json) -> list[tuple[str, str, int, Json]]:
    """Return the name, dtype, fill value and attributes of each layer; none without a reference.

    Args:
      experiment: The experiment.
      common: The attributes of the mapped variable that say how it is packed and where it is.
    """
    period = reference_period(experiment)
    if period is None:
        return []
    percentile, anomaly = layer_names(experiment.target)
    long_name = experiment.table[experiment.target].long_name
    season = (
        f"the values of the same cell in {period_as_text(period)}, as first mapped, on the "
        f"{climatology.WINDOW_DAYS} days of each year that are centred on the date (29 February: "
        "on 1 March in other years)"
    )
    missing = (
        f"missing where the value is, or where there are fewer than {climatology.MIN_VALUES} such "
        "values"
    )
    about = {
        ATTRIBUTE: period_as_text(period),
        "ancillary_variables": "quality_flag input_status",
        "coverage_content_type": "modelResult",
    }
    share: Json = common | {
        "long_name": f"percentile of {long_name} for the season",
        "units": "%",
        "scale_factor": PERCENTILE_STEP,
        "comment": f"share of {season} that are smaller, equal ones counted half; {missing}",
    }
    difference: Json = common | {
        "long_name": f"anomaly of {long_name} from the mean of the season",
        "comment": f"value minus the mean of {season}; {missing}",
    }
    fill = common["_FillValue"]
    return [
        (percentile, "<i2", fill, share | about),
        (anomaly, "<i2", fill, difference | about),
    ]
