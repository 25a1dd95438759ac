"""The experiment: what data, which region and period, which method. Frozen, strict, described."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from model.loss import LossConfig
from model.network import NetworkConfig
from model.recipe import Arm, InputsConfig, Recipe, TrainConfig
from pipeline.dates import period_as_text
from pipeline.experiment import renamed
from pipeline.experiment.variables import VARIABLES, Layer, Variable
from pipeline.grid.collocated_sites import Twins, find, numbered, places
from pipeline.grid.ease import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.grid.ease import FloatArray, IntArray


def _in_order(period: tuple[date, date]) -> tuple[date, date]:
    if period[1] < period[0]:
        msg = f"last day {period[1]} is before first day {period[0]}"
        raise ValueError(msg)
    return period


Ingredient = Literal[
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


def _listed(value: object) -> object:
    """One name is a list of one; none is an empty list."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(le=1_000_000)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Days = Annotated[int, Field(le=36_600)]
Km = Annotated[float, Field(ge=0, le=40_000)]
Celsius = Annotated[float, Field(ge=-100, le=100)]
Bits = Annotated[int, Field(ge=0, le=2**32 - 1)]
Shift = Annotated[int, Field(ge=-10_000, le=10_000)]
Period = Annotated[tuple[date, date], AfterValidator(_in_order)]
REFERENCE_ARM = "multiscale"  # compared with every other arm and baseline, and shown first
SATELLITE_BASELINE = "footprint"  # name of the satellite itself among arms and baselines


def reference_arm(arms: Sequence[str]) -> str:
    """The arm that is shown first: `multiscale`, or the first where there is none."""
    return REFERENCE_ARM if REFERENCE_ARM in arms else arms[0]


class SourcesConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Entries of the catalog, by what they are used for."""

    catalog: str = Field(description="Intake catalog: a preset's name, a path or a URL")
    forcing: Names = Field(min_length=1, description="entries with forcing of cells")
    static: Names = Field((), description="entries with static attributes of cells")
    satellite: str | None = Field(None, description="entry with footprint values of the target")
    insitu: Names = Field((), description="entries with site values of the target")
    truth: str | None = Field(None, description="entry with the target in every cell, to judge by")
    staged: str | None = Field(
        None, description="folder of the copies that `prepare --stage-to` made, read instead"
    )


class PlanetConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A planet whose truth is known, made before it is observed (an OSSE)."""

    kind: Literal["hard", "easy", "biased", "load"] = Field(
        "hard", description="magnitudes of its errors; the table is in pipeline/osse/planet.py"
    )
    seed: Seed = Field(0, description="seed of all its random streams")
    n_sites: Count = Field(30, ge=1, description="number of sites")
    omit_errors: tuple[Ingredient, ...] = Field((), description="errors switched off, by name")
    ocean_share: float = Field(0.0, ge=0, lt=1, description="share of cells that have no data")
    forcing_degrees: float = Field(
        0.125, ge=0.01, le=1, description="side of the cells of the grid that forcing is shown on"
    )
    url: str | None = Field(
        None, description="folder of a planet made before; null makes one in the workspace"
    )


class DomainConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The region, on EASE-Grid 2.0; snapped outward to whole footprints."""

    west_degrees: float = Field(ge=-180, le=180, description="western edge")
    south_degrees: float = Field(ge=-90, le=90, description="southern edge")
    east_degrees: float = Field(ge=-180, le=180, description="eastern edge")
    north_degrees: float = Field(ge=-90, le=90, description="northern edge")
    refinement: Literal[1, 2, 4, 8] = Field(description="cells along a 36 km footprint's side")

    @model_validator(mode="after")
    def _is_a_box(self) -> DomainConfig:
        west, east = self.west_degrees, self.east_degrees
        south, north = self.south_degrees, self.north_degrees
        if west >= east or south >= north:
            found = f"west {west}, east {east}, south {south}, north {north}"
            msg = f"{found}: west must be less than east, and south less than north"
            raise ValueError(msg)
        return self


class QcConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Rules that observations must pass; each value dropped is counted under its rule."""

    provider: bool = Field(True, description="drop what the provider's own flags reject")
    unchecked: Literal["keep", "drop"] = Field(
        "keep", description="values that the provider's flags say no check was applied to"
    )
    range: bool = Field(True, description="drop values outside the variable's range")
    frozen_below_degc: Celsius | None = Field(
        1.0, description="drop values where measured soil temperature is at or under this"
    )
    stuck_days: Days | None = Field(
        30, ge=2, description="drop runs of this many days or more with exactly one value"
    )
    spike: bool = Field(
        False, description="drop single-step spikes (Dorigo et al. 2013), made for hourly values"
    )
    depth_m: Layer | None = Field(
        (0.0, 0.075), description="depths a sensor may have, where its source says; null: any"
    )
    min_days: Days = Field(
        0, ge=0, description="leave out sites with fewer good days than this in the period"
    )
    duplicate_sites: Literal["keep", "longest", "mean"] = Field(
        "keep",
        description="of several sites in one cell, or nearer than 1 km: keep all, the longest "
        "record, the mean",
    )
    satellite_bits: Bits | None = Field(
        1, description="drop retrievals with any of these bits of their quality flag; null: none"
    )
    exclude_sites: tuple[str, ...] = Field(
        (),
        description="sites to leave out: by id, or by entry:id where one source alone is meant",
    )
    max_missing: dict[str, Share] = Field(
        {},
        description="largest share of missing values, by variable, or for all by `forcing` and "
        "`static`: of the dates on which more than 0.1 % of the valid cells lack a forcing (0.001, "
        "but at least two dates, where not given), of the valid cells without a static (0.1)",
    )


REGIONS = ("longitude", "network", "continent")


class FoldsConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How sites are dealt into folds of the spatial cross-validation."""

    kind: Literal["block", "random", "region", "none"] = Field(
        "block",
        description="squares of whole footprints never split, single places, whole regions, or "
        "none; sites of one place are dealt together",
    )
    by: str = Field(
        "longitude",
        description="regions: longitude (bands of about equally many sites), network, continent, "
        "or a GeoJSON file of polygons, path or URL; sites in none of them are one region more",
    )
    n_folds: Count = Field(
        5, ge=2, description="number of folds; of other regions than bands there are as they are"
    )
    block_km: Km = Field(400.0, gt=0, description="side of a block, of whole footprints")
    block_offset_footprints: tuple[Shift, Shift] = Field(
        (0, 0), description="shift of the blocks, rows and columns: another layout"
    )
    seed: Seed = Field(0, description="seed of the dealing")
    buffer_km: Km = Field(
        0.0, ge=0, description="training sites nearer than this to a held-out site are left out"
    )
    drop_footprints: bool = Field(
        False,
        description="leave footprints that hold a held-out site, or stand for it, out of the "
        "satellite training of its fold",
    )

    @model_validator(mode="after")
    def _consistent(self) -> FoldsConfig:
        if self.by not in REGIONS and not self.by.endswith((".json", ".geojson")):
            msg = f"by '{self.by}': expected {', '.join(REGIONS)} or a .geojson file"
            raise ValueError(msg)
        if self.drop_footprints and self.kind == "none":
            msg = "drop_footprints with kind none, which holds no site out"
            raise ValueError(msg)
        return self

    @property
    def layout(self) -> str:
        """How sites are held out, in words."""
        bands = f"{self.n_folds} bands of longitude held out whole"
        regions = {"longitude": bands, "network": "networks held out whole"}
        regions["continent"] = "continents held out whole"
        return {
            "none": "no sites held out",
            "random": f"{self.n_folds} folds of single sites",
            "block": f"{self.n_folds} folds of {self.block_km:g} km blocks",
            "region": regions.get(self.by, f"regions of {self.by.rpartition('/')[2]} held out"),
        }[self.kind]


class JudgingConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How results are judged."""

    min_days: Days = Field(90, ge=2, description="fewest pairs of a place that is scored")
    max_footprint_km: Km = Field(
        36.0, gt=0, description="farthest footprint that stands for a site in none"
    )
    footprints: bool = Field(False, description="score arm satellite against the satellite too")
    bootstrap_draws: Count = Field(2000, ge=100, description="resamples of blocks per interval")
    groups: dict[str, tuple[str, ...]] = Field(
        {},
        description="sites by a group's name, by id or entry:id, scored beside all other sites",
    )


class ComputeConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Where the work is spread; in no artefact's identity."""

    threads_per_worker: Count = Field(1, ge=1, description="CPU threads of one training worker")
    checkpoint_every_updates: Count = Field(100, ge=1, description="updates between two savings")


class Experiment(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One experiment, resolved: data, region, period, and a recipe's four sections."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="folder in a workspace")
    title: str = Field(description="one line for people")
    recipe: str = Field(description="recipe the sections inputs, network, loss, train start from")
    tuned_on: str | None = Field(None, description="data that the recipe was tuned on, if any")
    target: str = Field(description="the variable learnt, by our name")
    variables: dict[str, Variable] = Field({}, description="variables beyond soilweave's own")
    planet: PlanetConfig | None = Field(None, description="make a planet first, and observe it")
    cube: str | None = Field(
        None,
        description="URL of another experiment's cube.zarr, or of its folder; nothing is prepared "
        "here, and its planet is taken, where there is one",
    )
    models: str | None = Field(
        None, description="URL of a models/ folder trained elsewhere; nothing is trained here"
    )
    sources: SourcesConfig
    baselines: Names = Field(
        (), description="entries of products that are scored at the sites, beside the arms"
    )
    domain: DomainConfig
    period: Period = Field(description="first and last day of the cube, UTC")
    train_period: Period = Field(description="days that models are trained on")
    test_period: Period = Field(description="days that are scored")
    inputs_from: Literal["cell", "own"] = Field(
        description="inputs of a site: copied from its cell, or from the in-situ source itself"
    )
    qc: QcConfig = Field(default_factory=lambda: QcConfig())
    folds: FoldsConfig = Field(default_factory=lambda: FoldsConfig())
    arms: tuple[Arm, ...] = Field(min_length=1, description="which observations train a model")
    n_seeds: Count = Field(ge=1, description="members of an ensemble")
    inputs: InputsConfig
    network: NetworkConfig
    loss: LossConfig
    train: TrainConfig
    judging: JudgingConfig = Field(default_factory=lambda: JudgingConfig())
    compute: ComputeConfig = Field(default_factory=lambda: ComputeConfig())

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
            )
            if period[0] < self.period[0] or period[1] > self.period[1]
        ]
        if self.target not in self.table:
            known = [name for name, v in self.table.items() if v.kind == "target"]
            problems.append(f"target '{self.target}' is no variable; targets: {known}")
        inputs = {name for name, v in self.table.items() if v.kind in ("forcing", "static")}
        problems += [
            f"qc.max_missing.{name}: no forcing or static variable of that name"
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
        """Every variable of this experiment, ours and its own."""
        return VARIABLES | self.variables

    @property
    def recipe_sections(self) -> Recipe:
        """The method: the four sections of a recipe."""
        return Recipe(inputs=self.inputs, network=self.network, loss=self.loss, train=self.train)


def window(experiment: Experiment) -> Window:
    """The experiment's region on the grid."""
    box = experiment.domain
    edges = (box.west_degrees, box.south_degrees, box.east_degrees, box.north_degrees)
    return Window.from_bbox(*edges, box.refinement)


def find_collocated_pairs(experiment: Experiment, lat: FloatArray, lon: FloatArray) -> Twins:
    """The pairs of an experiment's sites; one cell counts where their inputs come from it."""
    return find(lat, lon, cells_of_sites(experiment, lat, lon))


def cells_of_sites(experiment: Experiment, lat: FloatArray, lon: FloatArray) -> IntArray | None:
    """(site,) number of the cell that gives each its inputs, -1 for none; None for own inputs."""
    if experiment.inputs_from == "own":
        return None
    return numbered(window(experiment), lat, lon)


def number_places(experiment: Experiment, lat: FloatArray, lon: FloatArray) -> IntArray:
    """(site,) the place of each of an experiment's sites, as `places` numbers them."""
    return places(len(lat), find_collocated_pairs(experiment, lat, lon))
