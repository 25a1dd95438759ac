"""Settings of an experiment: its data, region, period and method, as frozen pydantic models.

The descriptions of the fields are the reference of the settings: `soilweave ls --schema` prints
them. Unknown keys and values out of range are errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, model_validator

from model.climatology import is_long_enough
from model.loss import LossConfig
from model.network import NetworkConfig
from model.recipe import Arm, InputsConfig, Recipe, TrainConfig
from pipeline.dates import period_as_text
from pipeline.errors import redact_tree
from pipeline.experiment import renamed
from pipeline.experiment.field_types import (
    Bits,
    Celsius,
    Count,
    Days,
    Km,
    Names,
    Period,
    Seed,
    Share,
)
from pipeline.experiment.folds_config import FoldsConfig
from pipeline.experiment.product import ProductConfig
from pipeline.experiment.variables import VARIABLES, Layer, Variable
from pipeline.grid.collocated_sites import Twins, cell_numbers, find_twins, label_places
from pipeline.grid.ease import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.grid.ease import FloatArray, IntArray


ErrorName = Literal[
    "forcing_error",
    "attribute_error",
    "satellite_bias",
    "satellite_noise",
    "fast_drying",
    "seasonal_error",
    "satellite_gaps",
    "site_error",
    "site_gaps",
    "site_faults",
]


REFERENCE_ARM = "multiscale"  # compared with all other arms and baselines, and shown first
SATELLITE_BASELINE = "footprint"  # name of the satellite's own values among the baselines

# The farthest cell whose inputs `score` offers to a probe in none. The training sites of `scan`
# take what their stations do not measure from cells at up to 177 km.
FARTHEST_CELL_KM = 150.0

# Settings that change nothing that MLflow has; a run there is the same whatever they are.
NOT_OF_THE_RUN = ("compute", "product", "reference_period")


def reference_arm(arms: Sequence[str]) -> str:
    """Return the arm that others are compared with: `multiscale`, or else the first arm."""
    return REFERENCE_ARM if REFERENCE_ARM in arms else arms[0]


class SourcesConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Catalog entries of the data, by their use."""

    catalog: str = Field(description="Intake catalog: name of a preset, path or URL")
    forcing: Names = Field(min_length=1, description="entries with forcing, such as precipitation")
    static: Names = Field((), description="entries with static attributes, such as soil texture")
    satellite: str | None = Field(
        None, description="entry with satellite values of the target in footprints"
    )
    insitu: Names = Field((), description="entries with in-situ values of the target at sites")
    truth: str | None = Field(
        None, description="entry with the true target in every cell, for the evaluation only"
    )
    staged: str | None = Field(
        None,
        description="folder with copies made by `prepare --stage-to`, read instead of the sources",
    )


class PlanetConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A synthetic planet with known truth, which is generated and then observed (an OSSE)."""

    kind: Literal["hard", "easy", "biased", "load"] = Field(
        "hard", description="magnitudes of the errors of its observations"
    )
    seed: Seed = Field(0, description="seed of all its random numbers")
    n_sites: Count = Field(30, ge=1, description="number of sites")
    omit_errors: tuple[ErrorName, ...] = Field((), description="errors to leave out, by name")
    ocean_share: float = Field(
        0.0, ge=0, lt=1, description="share of the cells that are ocean, without data"
    )
    forcing_degrees: float = Field(
        0.125, ge=0.01, le=1, description="cell size of the forcing's grid in degrees"
    )
    url: str | None = Field(
        None,
        description="folder of an existing planet; null generates one in the workspace",
    )


class DomainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The region, which is extended to whole 36 km footprints of EASE-Grid 2.0."""

    west_degrees: float = Field(ge=-180, le=180, description="western edge in degrees east")
    south_degrees: float = Field(ge=-90, le=90, description="southern edge in degrees north")
    east_degrees: float = Field(ge=-180, le=180, description="eastern edge in degrees east")
    north_degrees: float = Field(ge=-90, le=90, description="northern edge in degrees north")
    refinement: Literal[1, 2, 4, 8] = Field(
        description="number of cells along the side of a 36 km footprint: 4 gives 9 km cells"
    )

    @model_validator(mode="after")
    def _is_a_box(self) -> DomainConfig:
        west, east = self.west_degrees, self.east_degrees
        south, north = self.south_degrees, self.north_degrees
        if west >= east or south >= north:
            edges = f"west {west}, east {east}, south {south}, north {north}"
            msg = f"{edges}: west must be less than east, and south less than north"
            raise ValueError(msg)
        return self


class QcConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Quality control of observations; the values that each rule drops are counted."""

    provider: bool = Field(True, description="drop values that the provider's flags reject")
    unchecked: Literal["keep", "drop"] = Field(
        "keep", description="what to do with values that the provider flags as not checked"
    )
    range: bool = Field(True, description="drop values outside of the variable's range")
    frozen_below_degc: Celsius | None = Field(
        1.0,
        description="drop values if the measured soil temperature is at or below this, in "
        "degrees Celsius; null drops none",
    )
    stuck_days: Days | None = Field(
        30,
        ge=2,
        description="drop runs of at least this many days with exactly the same value; null "
        "drops none",
    )
    spike: bool = Field(
        False,
        description="drop spikes of a single time step (Dorigo et al. 2013), a rule designed for "
        "hourly values",
    )
    depth_m: Layer | None = Field(
        (0.0, 0.075),
        description="smallest and largest depth of a sensor in m, if its source gives the depth; "
        "null accepts any",
    )
    min_days: Days = Field(
        0, ge=0, description="leave out sites with fewer days with values than this in the period"
    )
    duplicate_sites: Literal["keep", "longest", "mean"] = Field(
        "keep",
        description="what to do with sites in the same cell or nearer than 1 km to each other: "
        "keep all, use the longest record, or use their mean",
    )
    satellite_bits: Bits | None = Field(
        1,
        description="drop satellite values whose quality flag has any of these bits, given as a "
        "sum; null drops none",
    )
    exclude_sites: tuple[str, ...] = Field(
        (),
        description="sites to leave out, as id, or as entry:id for the site of one source only",
    )
    max_missing: dict[str, Share] = Field(
        {},
        description="largest accepted share of missing values, by variable, or by `forcing` or "
        "`static` for all of a kind. For forcing: share of the dates on which more than 0.1 % of "
        "the valid cells have no value (default 0.001, but at least two dates). For static: share "
        "of the valid cells without a value (default 0.1)",
    )


class JudgingConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How results are evaluated."""

    min_days: Days = Field(
        90,
        ge=2,
        description="smallest number of days with an observation and a prediction for a place to "
        "be scored",
    )
    max_footprint_km: Km = Field(
        36.0,
        gt=0,
        description="largest distance in km of the footprint that is used for a site outside of "
        "all footprints with data",
    )
    footprints: bool = Field(
        False, description="also score arm satellite against the satellite's own values"
    )
    bootstrap_draws: Count = Field(
        2000, ge=100, description="number of resamples of blocks for a confidence interval"
    )
    groups: dict[str, tuple[str, ...]] = Field(
        {},
        description="groups of sites to score separately from all other sites: lists of ids, or of "
        "entry:id, by the name of the group",
    )


class ComputeConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How the work is distributed; these settings do not change results."""

    workers: Count | None = Field(
        None,
        ge=1,
        description="number of workers on CPUs to wait for and to use; null uses as many as fit on "
        "the cluster",
    )
    gpus: Count | None = Field(
        None,
        ge=0,
        description="number of GPUs to wait for and to use, each with one worker; null uses those "
        "that the cluster has, 0 none",
    )
    memory: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="memory in GB that each worker reserves; null reserves none",
    )
    cpus_per_worker: Count = Field(1, ge=1, description="number of CPUs, and threads, of a worker")
    checkpoint_every_updates: Count = Field(
        100, ge=1, description="number of updates between checkpoints of a training run"
    )


class Experiment(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """All settings of one experiment, with those of its recipe."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="name of the experiment and of its folder in the workspace",
    )
    title: str = Field(description="description of the experiment in one line")
    recipe: str = Field(
        description="recipe that gives the defaults of inputs, network, loss, train and n_seeds"
    )
    tuned_on: str | None = Field(None, description="data that the recipe was tuned on, if any")
    target: str = Field(description="name of the variable to predict")
    variables: dict[str, Variable] = Field(
        {}, description="further variables, by name, beside those of soilweave"
    )
    planet: PlanetConfig | None = Field(
        None, description="synthetic planet to generate and observe; null uses real data"
    )
    cube: str | None = Field(
        None,
        description="URL of the cube.zarr of another experiment, or of its folder, to use instead "
        "of preparing a cube; the planet of that experiment is used too, if there is one",
    )
    models: str | None = Field(
        None,
        description="models to use instead of training: URL of the models/ folder of another "
        "experiment, or the name of models that come with soilweave",
    )
    sources: SourcesConfig
    baselines: Names = Field(
        (), description="entries of other products to score at the sites beside the arms"
    )
    domain: DomainConfig
    period: Period = Field(description="first and last day of the cube (UTC days)")
    train_period: Period = Field(description="first and last day that models are trained on")
    test_period: Period = Field(description="first and last day that is scored")
    reference_period: Period | None = Field(
        None,
        description="at least three years that percentiles and anomalies of the maps refer to; "
        "null refers to `period`, if it is as long",
    )
    inputs_from: Literal["cell", "own"] = Field(
        description="where a site takes its inputs from: the cell that contains it (cell), or the "
        "in-situ source itself (own)"
    )
    qc: QcConfig = Field(default_factory=lambda: QcConfig())
    folds: FoldsConfig = Field(default_factory=lambda: FoldsConfig())
    arms: tuple[Arm, ...] = Field(
        min_length=1,
        description="models to train: on satellite and in-situ values (multiscale), or on one of "
        "them only (insitu, satellite)",
    )
    n_seeds: Count = Field(ge=1, description="number of members of an ensemble")
    inputs: InputsConfig
    network: NetworkConfig
    loss: LossConfig
    train: TrainConfig
    judging: JudgingConfig = Field(default_factory=lambda: JudgingConfig())
    compute: ComputeConfig = Field(default_factory=lambda: ComputeConfig())
    product: ProductConfig = Field(default_factory=lambda: ProductConfig())

    @model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, settings: Any) -> Any:
        return renamed.with_new_names(settings) if isinstance(settings, dict) else settings

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        problems = [
            f"{key} {period_as_text(period)} is not inside period {period_as_text(self.period)}"
            for key, period in (
                ("train_period", self.train_period),
                ("test_period", self.test_period),
                ("reference_period", self.reference_period or self.period),
            )
            if period[0] < self.period[0] or period[1] > self.period[1]
        ]
        if self.reference_period and not is_long_enough(self.reference_period):
            problems.append("reference_period has less than three years")
        if self.target not in self.table:
            known = [name for name, v in self.table.items() if v.kind == "target"]
            problems.append(f"target '{self.target}' is not a variable; accepted: {known}")
        inputs = {name for name, v in self.table.items() if v.kind in ("forcing", "static")}
        problems += [
            f"qc.max_missing.{name}: there is no forcing or static variable of that name"
            for name in self.qc.max_missing.keys() - inputs - {"forcing", "static"}
        ]
        needs: dict[Arm, tuple[str, ...]] = {
            "multiscale": ("satellite", "insitu"),
            "insitu": ("insitu",),
            "satellite": ("satellite",),
        }
        problems += [
            f"arm {arm} needs sources.{source}, which is not given"
            for arm in self.arms
            for source in needs[arm]
            if self.models is None and not getattr(self.sources, source)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def table(self) -> dict[str, Variable]:
        """All variables by name: those of soilweave and those of this experiment."""
        return VARIABLES | self.variables

    @property
    def recipe_sections(self) -> Recipe:
        """The sections of the experiment that come from a recipe."""
        return Recipe(inputs=self.inputs, network=self.network, loss=self.loss, train=self.train)


def shown_settings(experiment: Experiment, **options: Any) -> dict[str, Any]:
    """Return the settings as JSON, without secrets in URLs, for files, MLflow and reports.

    Ray's workers get all settings instead, because they must read what the URLs name.

    Args:
      experiment: The experiment.
      options: Options of pydantic, such as `exclude`.
    """
    shown: dict[str, Any] = redact_tree(experiment.model_dump(mode="json", **options))
    return shown


def experiment_window(experiment: Experiment) -> Window:
    """Return the window of EASE-Grid 2.0 that contains the experiment's region.

    Raises:
      ValueError: If the region contains no footprint.
    """
    box = experiment.domain
    edges = (box.west_degrees, box.south_degrees, box.east_degrees, box.north_degrees)
    return Window.from_bbox(*edges, box.refinement)


def find_collocated_pairs(experiment: Experiment, lat: FloatArray, lon: FloatArray) -> Twins:
    """Find collocated pairs of an experiment's sites; see `collocated_sites`.

    Sites in the same cell are a pair only if they take their inputs from the cell.

    Args:
      experiment: The experiment.
      lat: (site,) degrees north.
      lon: (site,) degrees east.
    """
    return find_twins(lat, lon, cells_of_sites(experiment, lat, lon))


def cells_of_sites(experiment: Experiment, lat: FloatArray, lon: FloatArray) -> IntArray | None:
    """Return the (site,) number of the cell that each site takes its inputs from.

    Args:
      experiment: The experiment.
      lat: (site,) degrees north.
      lon: (site,) degrees east.

    Returns:
      (site,) number of the cell, -1 for sites outside of the domain; None if sites have their own
      inputs.
    """
    if experiment.inputs_from == "own":
        return None
    return cell_numbers(experiment_window(experiment), lat, lon)


def label_experiment_places(experiment: Experiment, lat: FloatArray, lon: FloatArray) -> IntArray:
    """Label the sites of an experiment by place; see `collocated_sites.label_places`.

    Args:
      experiment: The experiment.
      lat: (site,) degrees north.
      lon: (site,) degrees east.

    Returns:
      (site,) index of the first site at the same place.
    """
    return label_places(len(lat), find_collocated_pairs(experiment, lat, lon))
