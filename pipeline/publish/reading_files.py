"""Files of a release that help people to open its maps.

  README.txt: what the release is, how to cite it, and a few lines of Python and R that read it.
  intake.yaml: a catalog in the format of Intake 2, with an entry for the maps and one for the
    series of each arm. It needs neither soilweave nor a plugin.

Neither has the URL of the release, which is not known and may change when it is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from pipeline.experiment.config import reference_arm
from pipeline.publish import stac

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


README = """\
{title}
{rule}

Daily maps of {long_name} ({units}),
{first} to {through}: the mean, the standard deviation of its error and a quality flag, on
EASE-Grid 2.0 (EPSG:6933). report.html shows them; card.md says what they were made from, how good
they are, and where they should not be used.

Arms:     {arms}
Licence:  {license}
Creator:  {creator}
Cite as:  {citation}
{references}
HERE stands for the path or URL of this folder.

Python (packages xarray and zarr):

    import xarray as xr
    maps = xr.open_zarr("HERE/maps/{arm}.zarr")
    mean = float(maps["{target}"].sel(time="{through}").mean())

R (package reticulate, with a Python that has xarray and zarr):

    xr <- reticulate::import("xarray")
    maps <- xr$open_zarr("HERE/maps/{arm}.zarr")
    summary(unlist(maps$get("{target}")$sel(time = "{through}")$to_dict()$data))

A series of one cell is faster from the group `series` of the same store: group="series".
collection.json describes the release in STAC; intake.yaml opens the maps with Intake.
"""


def reading_files(
    experiment: Experiment, workspace: Workspace, through: str
) -> Iterator[tuple[str, bytes]]:
    """Yield the key and content of README.txt and intake.yaml.

    Args:
      experiment: The experiment.
      workspace: Its folder in the workspace, with complete maps.
      through: The last day of the maps.
    """
    yield "README.txt", _readme(experiment, workspace, through).encode()
    yield "intake.yaml", yaml.safe_dump(_intake_catalog(experiment), sort_keys=False).encode()


def _readme(experiment: Experiment, workspace: Workspace, through: str) -> str:
    product, variable = experiment.product, experiment.table[experiment.target]
    references = "".join(f"See also: {reference}\n" for reference in product.references)
    page = f" ({product.creator_url})" if product.creator_url else ""
    return README.format(
        title=experiment.title,
        rule="=" * len(experiment.title),
        long_name=variable.long_name,
        units=variable.units,
        first=experiment.period[0],
        through=through,
        arms=", ".join(experiment.arms),
        license=product.stated_license,
        creator=f"{product.stated_creator}{page}",
        citation=stac.citation(experiment, stac.made_in(workspace)),
        references=references,
        arm=reference_arm(experiment.arms),
        target=experiment.target,
    )


def _intake_catalog(experiment: Experiment) -> Json:
    """Return a catalog of Intake 2; CATALOG_DIR is the folder that it is opened from."""
    data, entries = {}, {}
    for arm in experiment.arms:
        for name, group in ((arm, ""), (f"{arm}_series", "series")):
            data[f"{name}_store"] = {
                "datatype": "intake.readers.datatypes:Zarr",
                "kwargs": {"url": f"{{CATALOG_DIR}}/maps/{arm}.zarr", "root": group},
                "metadata": {},
                "user_parameters": {},
            }
            entries[name] = {
                "reader": "intake.readers.readers:XArrayDatasetReader",
                "output_instance": "xarray:Dataset",
                "kwargs": {"args": [f"{{data({name}_store)}}"], "chunks": {}},
                "metadata": {"license": experiment.product.stated_license},
                "user_parameters": {},
            }
    about = {"title": experiment.title}
    catalog: Json = {"version": 2, "metadata": about, "data": data, "entries": entries}
    return catalog | {"aliases": {}, "user_parameters": {}}
