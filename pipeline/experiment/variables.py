"""The variables of soilweave: name, CF standard name, units and range.

An experiment can add variables in its section `variables`.
"""

from __future__ import annotations

from math import ceil, log10
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

Kind = Literal["forcing", "static", "target", "auxiliary"]
Depth = Annotated[float, Field(ge=0, le=1_000)]  # m below the surface


def _check_layer(layer: tuple[float, float]) -> tuple[float, float]:
    """Check that the top of a layer is not deeper than its bottom."""
    if layer[0] > layer[1]:
        msg = f"the top {layer[0]:g} must not be deeper than the bottom {layer[1]:g}"
        raise ValueError(msg)
    return layer


Layer = Annotated[tuple[Depth, Depth], AfterValidator(_check_layer)]


class Variable(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A physical quantity, with its units and its valid range."""

    kind: Kind = Field(
        description="use of the variable: forcing (a daily input), static (an input that does not "
        "change in time), target, or auxiliary (for quality control)"
    )
    long_name: str = Field(description="name in figures and tables")
    standard_name: str | None = Field(None, description="CF standard name, if there is one")
    units: str = Field(description="units in the cube, in UDUNITS form")
    minimum: float = Field(ge=-1e30, le=1e30, description="smallest valid value, in these units")
    maximum: float = Field(ge=-1e30, le=1e30, description="largest valid value, in these units")
    depth_m: Layer | None = Field(
        None, description="top and bottom of the soil layer, in m below the surface"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Variable:
        if self.minimum >= self.maximum:
            msg = f"minimum {self.minimum:g} must be less than maximum {self.maximum:g}"
            raise ValueError(msg)
        return self

    @property
    def scale_factor(self) -> float:
        """Step of the values in maps, which are int16: a power of ten.

        Values up to twice the largest magnitude of the valid range fit.
        """
        return float(f"1e{ceil(log10(2 * max(abs(self.minimum), abs(self.maximum)) / 32767))}")


def _forcing(
    long_name: str, standard_name: str, units: str, minimum: float, maximum: float
) -> Variable:
    return Variable(
        kind="forcing",
        long_name=long_name,
        standard_name=standard_name,
        units=units,
        minimum=minimum,
        maximum=maximum,
    )


def _static(long_name: str, units: str, minimum: float, maximum: float) -> Variable:
    return Variable(
        kind="static", long_name=long_name, units=units, minimum=minimum, maximum=maximum
    )


LAND_COVERS = {
    "tree": "under trees",
    "shrub": "shrubland",
    "grass": "grassland",
    "crop": "cropland",
    "built": "built up",
    "bare": "bare or sparsely vegetated",
    "snow": "snow and ice",
    "water": "open water",
    "wetland": "wetland",
    "moss": "under moss and lichen",
}

VARIABLES: dict[str, Variable] = {
    "soil_moisture": Variable(
        kind="target",
        long_name="volumetric soil moisture, 0 to 5 cm",
        standard_name="volume_fraction_of_condensed_water_in_soil",
        units="m3 m-3",
        minimum=0.005,
        maximum=0.65,
        depth_m=(0.0, 0.05),
    ),
    "precipitation": _forcing("precipitation", "precipitation_flux", "kg m-2 day-1", 0, 2000),
    "air_temperature": _forcing("air temperature at 2 m", "air_temperature", "K", 180, 340),
    "specific_humidity": _forcing(
        "specific humidity at 2 m", "specific_humidity", "kg kg-1", 0, 0.1
    ),
    "shortwave": _forcing(
        "downward shortwave radiation",
        "surface_downwelling_shortwave_flux_in_air",
        "W m-2",
        0,
        1000,
    ),
    "longwave": _forcing(
        "downward longwave radiation",
        "surface_downwelling_longwave_flux_in_air",
        "W m-2",
        0,
        1000,
    ),
    "surface_pressure": _forcing(
        "surface air pressure", "surface_air_pressure", "Pa", 40_000, 120_000
    ),
    "eastward_wind": _forcing("eastward wind at 10 m", "eastward_wind", "m s-1", -100, 100),
    "northward_wind": _forcing("northward wind at 10 m", "northward_wind", "m s-1", -100, 100),
    "wind_speed": _forcing("wind speed at 10 m", "wind_speed", "m s-1", 0, 100),
    # Daily states of the land surface. `lai` and `albedo` are constants, so these have other names.
    "surface_temperature": _forcing(
        "temperature of the land surface", "surface_temperature", "K", 150, 360
    ),
    "surface_albedo": _forcing("albedo of the day", "surface_albedo", "1", 0, 1),
    "high_vegetation_lai": _forcing(
        "leaf area index of trees, where there are any", "leaf_area_index", "1", 0, 10
    ),
    "low_vegetation_lai": _forcing(
        "leaf area index of low vegetation, where there is any", "leaf_area_index", "1", 0, 10
    ),
    "sand": _static("sand", "percent", 0, 100),
    "silt": _static("silt", "percent", 0, 100),
    "clay": _static("clay", "percent", 0, 100),
    "bulk_density": _static("soil bulk density", "g cm-3", 0, 3),
    "water_capacity": _static("soil water capacity", "percent", 0, 100),
    "elevation": _static("elevation above sea level", "m", -500, 9000),
    "slope": _static("slope of the ground", "degree", 0, 90),
    "organic_carbon": _static("soil organic carbon", "g kg-1", 0, 600),
    "porosity": _static("soil porosity", "m3 m-3", 0, 1),
    "lai": _static("mean leaf area index", "1", 0, 10),
    "ndvi": _static("mean normalised difference vegetation index", "1", -1, 1),
    "albedo": _static("surface albedo", "1", 0, 1),
    "land_cover": _static("land cover class (IGBP)", "1", 0, 255),
    "roughness": _static("surface roughness parameter of the retrieval", "1", 0, 5),
    "water_fraction": _static("fraction of open water", "1", 0, 1),
    "dense_vegetation": _static("dense vegetation flag of the retrieval", "1", 0, 1),
    "surface_flag": _static("extraordinary surface flag of the retrieval", "1", 0, 255),
    "irrigated": _static("fraction of the land that is irrigated", "1", 0, 1),
    **{
        f"cover_{kind}": _static(f"fraction of the land that is {what}", "1", 0, 1)
        for kind, what in LAND_COVERS.items()
    },
    "soil_temperature": Variable(
        kind="auxiliary",
        long_name="soil temperature at 5 cm",
        standard_name="soil_temperature",
        units="degC",
        minimum=-60,
        maximum=80,
    ),
}
