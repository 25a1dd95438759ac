"""The journey on a cluster of three nodes with S3, PostgreSQL and MLflow: spread, hurt, compared.

Run by `make test-cluster`. As root every node is a network namespace of its own; each test builds
on the cluster that the one before has left.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import journeys
import mlflow
import nodes
import processes
import pytest
import servers
from journeys import OPTIONS
from network import told

if TYPE_CHECKING:
    from pathlib import Path

    from network import Network
    from nodes import Nodes


CLOSE = 1e-4
N_MODELS = 7  # multiscale and insitu in 2 folds and on all sites, satellite on all
pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Place:
    """The cluster, its servers, and the same experiment run at home."""

    net: Network
    nodes: Nodes
    s3: servers.S3
    tracking: str
    home: Path
    stack: contextlib.ExitStack
    before: set[processes.Process]

    def root(self, name: str) -> str:
        """Where an experiment's artefacts are."""
        return self.s3.url("ws", name)

    def submitted(self, name: str) -> contextlib.AbstractContextManager[journeys.Journey]:
        """The demo, submitted as a job under a name."""
        given = ["--address", self.nodes.dashboard, "--workspace", self.s3.url("ws")]
        environment = nodes.clean() | self.nodes.access
        return journeys.soilweave(environment, "submit", "demo", *given, "--name", name, *OPTIONS)

    def made(self, name: str, ending: str) -> int:
        """Number of objects of an experiment whose keys end so."""
        return sum(key.endswith(ending) for key in self.s3.keys(f"ws/{name}/"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("cluster"), processes.ours()
    home = tmp_path_factory.mktemp("home")
    with contextlib.ExitStack() as stack:
        since = time.monotonic()
        net = stack.enter_context(nodes.machines())
        s3 = stack.enter_context(servers.seaweed(folder, net.address))
        try:
            database = stack.enter_context(servers.postgres(folder, net.address))
        except servers.Absent as error:
            pytest.skip(str(error))
        tracking = stack.enter_context(
            servers.mlflow_server(folder, database, s3.url("mlflow"), net.address, s3.environment)
        )
        told("servers up", f"{time.monotonic() - since:.1f} s")
        told("at home: seconds", journeys.at_home(home, nodes.clean()))
        since = time.monotonic()
        given = s3.environment | {"MLFLOW_TRACKING_URI": tracking}
        given |= {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
        made = stack.enter_context(nodes.cluster(folder, given, net=net))
        told("cluster up", f"{time.monotonic() - since:.1f} s, {sorted(made.alive())}")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3.environment.items():
                patch.setenv(name, value)
            yield Place(net, made, s3, tracking, home / "demo", stack, before)


def same(place: Place, name: str) -> None:
    """A journey's results are those at home."""
    found = journeys.difference(str(place.home), place.root(name))
    told(f"{name}: largest differences", found)
    assert found.scores <= CLOSE
    assert found.summary <= CLOSE
    assert max(found.maps.values()) <= CLOSE


def ended(place: Place, name: str, journey: journeys.Journey) -> None:
    """A journey ends well."""
    assert journey.end() == 0, journey.text()
    told(f"{name}: seconds", journey.seconds())
    told(f"{name}: nodes", journeys.nodes_of(place.root(name)))


def test_a_submitted_journey_gives_what_it_gives_at_home(place):
    with place.submitted("whole") as journey:
        ended(place, "whole", journey)
    keys = place.s3.keys("ws/whole/")
    for name in ("scores.parquet", "summary.json", "report.html", "maps/multiscale.zarr/zarr.json"):
        assert f"ws/whole/{name}" in keys
    same(place, "whole")


def test_work_is_spread_over_the_workers_and_spares_the_head(place):
    workers = {machine.address for machine in place.nodes.workers}
    for artefact, shares in journeys.nodes_of(place.root("whole")).items():
        assert set(shares) == workers, artefact


def test_mlflow_has_the_journey_and_the_champion(place):
    client = mlflow.MlflowClient(place.tracking)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(children) == len(runs) - 1 > 0
    assert {run.info.status for run in runs} == {"FINISHED"}
    artifacts = [key for key in place.s3.keys("mlflow/") if parents[0].info.run_id in key]
    assert artifacts
    champions = [m for m in client.search_registered_models() if "champion" in m.aliases]
    assert champions
    told("mlflow", f"1 parent, {len(children)} children, {len(artifacts)} artifacts on S3")
    told("mlflow", f"champions {[(m.name, m.aliases['champion']) for m in champions]}")


def test_a_node_lost_while_training_changes_nothing(place):
    with place.submitted("train") as journey:
        journey.wait_until(
            lambda: place.made("train", "/checkpoint.safetensors") >= 2, "two trained models"
        )
        lost(place, "train", journey, "RayTrainWorker")
        assert place.made("train", "/checkpoint.safetensors") < N_MODELS
        ended(place, "train", journey)
    same(place, "train")
    assert place.made("train", "/progress.safetensors") == 0
    told("node started again", f"{place.nodes.start(0):.1f} s, {sorted(place.nodes.alive())}")


def test_a_node_lost_while_predicting_changes_nothing(place):
    with place.submitted("predict") as journey:
        journey.wait_until(lambda: bool(place.s3.keys("ws/predict/maps/multiscale.zarr/")), "maps")
        journey.wait_until(lambda: bool(shards(place)), "shards of maps")
        lost(place, "predict", journey, "map_tile")
        assert not place.s3.keys("ws/predict/maps/manifest.json")
        ended(place, "predict", journey)
    same(place, "predict")
    told("node started again", f"{place.nodes.start(0):.1f} s, {sorted(place.nodes.alive())}")


def shards(place: Place) -> list[str]:
    """Shards of maps that are there."""
    return [key for key in place.s3.keys("ws/predict/maps/") if "/soil_moisture/c/" in key]


def lost(place: Place, name: str, journey: journeys.Journey, doing: str) -> None:
    """SIGKILL to every process of the first worker's node, which is doing something."""
    machine = place.nodes.workers[0]
    at_work = [title for title in machine.titles() if title.startswith("ray::")]
    killed = place.nodes.kill(0)
    told(f"{name}: node killed", f"{killed} processes at {journey.now():.1f} s, {at_work}")
    assert any(doing in title for title in at_work)
    assert journey.process.poll() is None
    assert machine.pids() == []


def test_nothing_is_left(place):
    home = place.nodes.home
    place.stack.close()
    assert processes.leftovers(place.before) == []
    assert place.net.left() == []
    assert not home.exists()
    told("left", "no process, no namespace, no link, no folder of Ray")
