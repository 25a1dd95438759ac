"""Make a planet whose truth is known, as files like a provider's: planet/ in the workspace."""

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
    """Write the planet's files; nothing where the experiment observes the Earth.

    Raises:
      StoreError: a planet made elsewhere (`planet.url`) is not there.
    """
    if experiment.planet is None:
        return
    n_days = (experiment.period[1] - experiment.period[0]).days + 1
    progress.start("planet", n_days, "days")
    url = workspace.url("planet")
    elsewhere = experiment.planet.url or workspace.prepared(experiment).url("planet")
    if elsewhere != url:
        if experiment.cube is not None and experiment.sources.truth is None:
            progress.finish("nothing: the cube is made, and no truth is asked for")
            return
        if not files.exists(files.join(elsewhere, "sites.nc")):
            remedy = "make it with soilweave prepare, or give planet.url, the folder of another"
            raise StoreError(elsewhere, "no planet here", remedy=remedy)
        progress.finish(f"planet of {elsewhere}")
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
    # Its products of matrices are small: threads that wait for one another made it 5 times slower.
    with threadpool_limits(1, user_api="blas"):
        generate(planet, window, period, target, write, progress.advance)
    artefact.commit(inputs, written)
    size = "{} x {}".format(*window.cell_shape)
    progress.finish(f"planet {planet.seed} ({planet.kind}), {size} cells, {planet.n_sites} sites")
