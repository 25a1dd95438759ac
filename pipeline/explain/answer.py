"""Put together what is known of one value of the maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import redact_tree
from pipeline.explain import origin, place, value
from pipeline.explain.subject import find_subject

if TYPE_CHECKING:
    from datetime import date

    from pipeline.files import Json


def explain(url: str, lat: float, lon: float, day: date, arm: str | None = None) -> Json:
    """Explain the value of the maps at a place on a day.

    Args:
      url: URL of an experiment's folder; of a publication, whose latest release is read; of a
        release; or of the maps of an arm in one of them (maps/ARM.zarr).
      lat: Degrees north.
      lon: Degrees east.
      day: The day.
      arm: The arm; by default `multiscale`, or else the first.

    Returns:
      JSON values: what was asked (`experiment`, `arm`, `day`, `lat`, `lon`), and what `value`,
      `place` and `origin` describe.

    Raises:
      StoreError: If there are no complete maps at the URL.
      ConfigError: If the place, the day or the arm is not in the maps, or the cell has no inputs.
    """
    subject = find_subject(url, lat, lon, day, arm)
    product = subject.experiment.product
    described: Json = {
        "experiment": subject.experiment.name,
        "title": subject.experiment.title,
        "url": subject.home.root,
        "arm": subject.arm,
        "day": str(day),
        "lat": lat,
        "lon": lon,
        "value": value.read_value(subject),
        "cell": place.describe_cell(subject),
        "footprint": place.describe_footprint(subject),
        "sites": place.describe_sites(subject),
        "inputs": place.describe_inputs(subject),
        "origin": origin.describe_origin(subject),
        "product": product.model_dump(mode="json") | {"license": product.stated_license},
    }
    redacted: Json = redact_tree(described)
    return redacted
