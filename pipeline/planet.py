"""The stage that generates a planet whose truth is known, as provider-like files in `planet/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from pipeline import files, schema, store
from pipeline.errors import StoreError
from pipeline.osse.write import generate

if TYPE_CHECKING:
    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Write the files of the planet; do nothing if the experiment observes the Earth.

    If the planet is in another workspace or at `planet.url`, only its presence is checked.

    Raises:
      StoreError: If that other planet does not exist.
    """
    if experiment.planet is None:
        return
    n_days = (experiment.period[1] - experiment.period[0]).days + 1
    progress.start("planet", n_days, "days")
    url = workspace.url("planet")
    elsewhere = experiment.planet.url or workspace.prepared(experiment).url("planet")
    if elsewhere != url:
        if experiment.cube is not None and experiment.sources.truth is None:
            progress.finish("not needed: the cube exists already, and no truth is configured")
            return
        if not files.exists(files.join(elsewhere, "sites.nc")):
            hint = (
                "run soilweave prepare to generate it, or set planet.url to the folder of a planet"
            )
            raise StoreError(elsewhere, "there is no planet in this folder", remedy=hint)
        progress.finish(f"using the planet in {elsewhere}")
        return
    artefact = workspace.artefact("planet")
    inputs = schema.identity(experiment, "planet")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("planet complete")
        return
    artefact.begin(inputs)
    workspace.describe(experiment)
    written: list[Json] = []

    def write(name: str, data: bytes) -> None:
        files.write_bytes(files.join(url, name), data)
        written.append(store.record(url, name))

    window = schema.window(experiment)
    planet, period, target = experiment.planet, experiment.period, experiment.target
    # Its matrix products are small, so that several BLAS threads make it about 5 times slower.
    with threadpool_limits(1, user_api="blas"):
        generate(planet, window, period, target, write, progress.advance)
    artefact.commit(inputs, written)
    size = "{} x {}".format(*window.cell_shape)
    progress.finish(f"planet {planet.seed} ({planet.kind}), {size} cells, {planet.n_sites} sites")
