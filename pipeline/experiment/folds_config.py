"""Settings of the folds of spatial cross-validation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from pipeline.experiment.field_types import Count, Km, Seed, Shift

# Values of `by` that are not a GeoJSON file.
REGIONS = ("longitude", "network", "continent")


class FoldsConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How sites are assigned to the folds of spatial cross-validation."""

    kind: Literal["block", "random", "region", "knndm", "none"] = Field(
        "block",
        description="what is held out: square blocks of footprints, random single places, whole "
        "regions, clusters as far from the other sites as the map's cells are from sites (knndm: "
        "nearest neighbour distance matching), or none; sites at the same place are always in the "
        "same fold",
    )
    by: str = Field(
        "longitude",
        description="the regions: longitude (bands with about equal numbers of sites), network, "
        "continent, or path or URL of a GeoJSON file with polygons; sites in no polygon are one "
        "further region",
    )
    n_folds: Count = Field(
        5,
        ge=2,
        description="number of folds; ignored for networks, continents and polygons, where each "
        "region is a fold",
    )
    block_km: Km = Field(
        400.0, gt=0, description="side of a block in km, rounded to whole 36 km footprints"
    )
    block_offset_footprints: tuple[Shift, Shift] = Field(
        (0, 0), description="shift of the blocks in footprints, along rows and columns"
    )
    seed: Seed = Field(0, description="seed of the assignment")
    train_sites: Count | None = Field(
        None,
        ge=1,
        description="train and calibrate with this many of the sites, chosen at random, and score "
        "at all of them; null uses all",
    )
    train_sites_seed: Seed = Field(
        0, description="seed of that choice; with one seed, fewer sites are some of the more"
    )
    buffer_km: Km = Field(
        0.0,
        ge=0,
        description="leave out training sites that are nearer than this, in km, to a held-out site",
    )
    drop_footprints: bool = Field(
        False,
        description="leave out of a fold's training the footprints that contain its held-out "
        "sites, or whose values are used for them",
    )

    @model_validator(mode="after")
    def _consistent(self) -> FoldsConfig:
        if self.by not in REGIONS and not self.by.endswith((".json", ".geojson")):
            msg = f"by '{self.by}': expected {', '.join(REGIONS)} or a .geojson file"
            raise ValueError(msg)
        if self.drop_footprints and self.kind == "none":
            msg = "drop_footprints needs held-out sites, but kind is none"
            raise ValueError(msg)
        return self

    @property
    def layout(self) -> str:
        """Short description of how sites are held out."""
        regions = {
            "longitude": f"{self.n_folds} held-out bands of longitude",
            "network": "held-out networks",
            "continent": "held-out continents",
        }
        return {
            "none": "no held-out sites",
            "random": f"{self.n_folds} folds of single sites",
            "block": f"{self.n_folds} folds of {self.block_km:g} km blocks",
            "knndm": f"{self.n_folds} folds that match the distances from cells to sites",
            "region": regions.get(self.by, f"held-out regions of {self.by.rpartition('/')[2]}"),
        }[self.kind]
