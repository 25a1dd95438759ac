"""Maps: fields on the grid and values at places, on one frame.

Fields of the maps, the truth and the satellite: one day, and means in blocks of days.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model.attribute_space import RunningSum
from pipeline.catalog import experiment_sources
from pipeline.evaluate.report import style
from pipeline.storage import schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipeline.evaluate.report.style import Picture
    from pipeline.experiment.config import Experiment
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube

    Reader = Callable[[NDArray[np.datetime64]], NDArray[np.float32]]


Line = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
_WIDTH = 3.4  # inches of a map
_MARGINS = (0.42, 0.22, 0.1, 0.06)  # of its axes, inches: left, bottom, right, top
_LAND = "#eceef1"  # where a map has no value


@dataclass(frozen=True)
class Scale:
    """A colour scale: what is shown, its unit, the colours and their ends."""

    name: str
    unit: str
    colours: str
    low: float
    high: float

    @classmethod
    def over(
        cls, name: str, unit: str, colours: str, values: list[NDArray[Any]], centred: bool = False
    ) -> Scale:
        """A scale over all but the 2 % of values at either end; `centred` on zero."""
        known = np.concatenate([v[np.isfinite(v)].ravel() for v in values])
        if not known.size:
            return cls(name, unit, colours, 0.0, 1.0)
        low, high = (float(q) for q in np.quantile(known, (0.02, 0.98)))
        if centred:
            high = max(abs(low), abs(high), 1e-9)
            low = -high
        return cls(name, unit, colours, low, max(high, low + 1e-9))


@dataclass(frozen=True)
class Frame:
    """The region on the page: edges in metres of the grid, and where degrees lie on them.

    `lines` are borders, each (x, y) in metres; `places` (x, y) are the sites, `numbered` places to
    write 1, 2, 3 and so on at. `scattered` is the number of cells where so few have values that
    they are drawn as large squares, else 0.
    """

    bounds: tuple[float, float, float, float]  # left, bottom, right, top
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    places: Line
    lines: list[Line] = field(default_factory=list)
    scattered: int = 0
    numbered: Line | None = None

    @property
    def is_wide(self) -> bool:
        """Whether it is much wider than high."""
        left, bottom, right, top = self.bounds
        return right - left > 1.6 * (top - bottom)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a map, inches."""
        left, bottom, right, top = self.bounds
        high = (_WIDTH - _MARGINS[0] - _MARGINS[2]) * (top - bottom) / (right - left)
        return _WIDTH, min(high, 2 * _WIDTH) + _MARGINS[1] + _MARGINS[3]


def mapped(frame: Frame, values: NDArray[Any], scale: Scale, alt: str) -> Picture:
    """A field (y, x), cells or footprints that fill the frame; sites as dots."""
    with style.canvas(*frame.size, layout="none") as figure:
        axes = _axes(figure, frame)
        colours: dict[str, Any] = {"cmap": scale.colours, "vmin": scale.low, "vmax": scale.high}
        if frame.scattered:
            _squares(axes, frame, values, colours)
        else:
            left, bottom, right, top = frame.bounds
            shown = np.ma.masked_invalid(values)
            extent = (left, right, bottom, top)
            axes.imshow(shown, extent=extent, interpolation="nearest", **colours)
            axes.scatter(*frame.places, s=9, c="white", edgecolors="black", linewidths=0.7)
        if frame.numbered is not None:
            _numbers(axes, frame.numbered)
        return style.picture(figure, alt, "png")


def at_places(
    frame: Frame, values: NDArray[Any], blocks: NDArray[Any], scale: Scale, alt: str
) -> Picture:
    """Values of the sites; `blocks` (fy, fx) chequers the ground, 0 or 1, -1 for none."""
    from matplotlib.colors import ListedColormap

    with style.canvas(*frame.size, layout="none") as figure:
        axes = _axes(figure, frame)
        left, bottom, right, top = frame.bounds
        axes.imshow(
            np.ma.masked_less(blocks, 0),
            extent=(left, right, bottom, top),
            cmap=ListedColormap(["#ffffff", "#e6eaf0"]),
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        known = np.isfinite(values)
        x, y = frame.places
        axes.scatter(x[~known], y[~known], s=14, marker="x", c="#888888", linewidths=0.8)
        axes.scatter(
            x[known],
            y[known],
            s=float(np.clip(2000 / max(len(x), 1), 13, 34)),
            c=values[known],
            cmap=scale.colours,
            vmin=scale.low,
            vmax=scale.high,
            edgecolors="black",
            linewidths=0.6,
        )
        return style.picture(figure, alt, "png")


def colour_bar(scale: Scale) -> Picture:
    """The scale of maps, as a picture of its own."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    with style.canvas(_WIDTH, 0.62) as figure:
        axes = figure.subplots()
        colours = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
        bar = figure.colorbar(colours, cax=axes, orientation="horizontal", extend="both")
        bar.outline.set_visible(False)
        style.short_ticks(axes.xaxis)
        axes.set_xlabel(style.quantity(scale.name, scale.unit))
        ends = f"{style.number(round(scale.low, 4))} to {style.number(round(scale.high, 4))}"
        return style.picture(figure, f"Colour scale of {scale.name}, {ends} {scale.unit}")


def _squares(axes: Axes, frame: Frame, values: NDArray[Any], colours: dict[str, Any]) -> None:
    """Values of few cells as squares that nearly touch where the cells are evenly spread."""
    left, bottom, right, top = frame.bounds
    ny, nx = values.shape
    row, col = np.nonzero(np.isfinite(values))
    x = left + (col + 0.5) * (right - left) / nx
    y = top - (row + 0.5) * (top - bottom) / ny
    width, height = frame.size
    points = 72 * 72 * width * height / frame.scattered
    axes.set_facecolor("white")
    axes.scatter(x, y, s=0.3 * points, c=values[row, col], marker="s", linewidths=0, **colours)


def _numbers(axes: Axes, places: Line) -> None:
    """1, 2, 3 at places, the first on top."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.2, foreground="white")]
    bold: dict[str, Any] = {"fontsize": 7.5, "fontweight": "bold", "color": "#b03000"}
    for number, (x, y) in enumerate(zip(*places, strict=True), 1):
        centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 100 - number}
        axes.text(x, y, str(number), path_effects=halo, **bold, **centred)


def _axes(figure: Figure, frame: Frame) -> Axes:
    """Axes in metres, labelled in degrees, with borders."""
    width, height = frame.size
    low_x, low_y, high_x, high_y = _MARGINS
    wide, high = (width - low_x - high_x) / width, (height - low_y - high_y) / height
    axes = figure.add_axes((low_x / width, low_y / height, wide, high))
    axes.set_facecolor(_LAND)
    left, bottom, right, top = frame.bounds
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(True)
    for line in frame.lines:
        axes.plot(*line, color="#5b6472", linewidth=0.5, zorder=2)
    lon, lat = _degrees(frame.lon), _degrees(frame.lat)
    axes.set_xticks(np.interp(lon, frame.lon, frame.x), [_name(v, "E", "W") for v in lon])
    northward = np.interp(lat, frame.lat[::-1], frame.y[::-1])
    axes.set_yticks(northward, [_name(v, "N", "S") for v in lat])
    axes.tick_params(length=2.5, labelsize=7.5, pad=2)
    return axes


def _degrees(along: NDArray[np.float64]) -> list[float]:
    """Round degrees inside the frame, three or four."""
    low, high = float(along.min()), float(along.max())
    steps = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60)
    step = next((s for s in steps if (high - low) / s <= 4), 60)
    return [k * step for k in range(int(np.ceil(low / step)), int(high // step) + 1)]


def _name(degrees: float, positive: str, negative: str) -> str:
    """Degrees and the hemisphere they are in, which 0 has none of."""
    if degrees == 0:
        return "0°"
    return f"{abs(degrees):g}°{positive if degrees > 0 else negative}"


ENOUGH = 0.8  # of the most footprints observed on a day: such days may be shown


@dataclass(frozen=True)
class Mapped:
    """What the report shows of one arm's maps.

    `contrast` (day,) is the standard deviation over cells; `level` (fy, fx) the mean over days of
    the footprint's mean minus the satellite, None without a satellite.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    contrast: NDArray[np.float64]
    level: NDArray[np.float64] | None


@dataclass(frozen=True)
class Fields:
    """Reads fields of an experiment's test period, never more than a block of days at once."""

    experiment: Experiment
    workspace: Workspace
    cube: Cube

    @property
    def days(self) -> NDArray[np.datetime64]:
        """Days of the test period."""
        days = self.cube.days[self.cube.day_index(self.experiment.test_period)]
        return days.astype("datetime64[ns]")

    def blocks(self) -> list[NDArray[np.datetime64]]:
        """Those days in pieces."""
        return schema.in_blocks(self.days)

    def arm(self, arm: str, name: str = "") -> Reader:
        """Reader of an arm's map, or of its standard deviation with `name` "_std"."""
        mapped = zarr_arrays.open_group(self.workspace.url("maps", f"{arm}.zarr"), "")
        array = mapped[f"{self.experiment.target}{name}"]
        return lambda days: np.asarray(array.sel(time=days).values, np.float32)

    def truth(self) -> Reader | None:
        """Reader of the truth, where there is one; only in cells that are mapped."""
        if self.experiment.sources.truth is None:
            return None
        truth = experiment_sources.open_truth(self.experiment)
        mask = self.cube.cells["mask"].values.astype(bool)
        return lambda days: np.where(mask, truth.days(days), np.float32(np.nan))

    def satellite(self) -> Reader | None:
        """Reader of the footprints, where there are any."""
        if self.cube.footprints is None:
            return None
        array = self.cube.footprints[self.cube.target]
        return lambda days: np.asarray(array.sel(time=days).values, np.float32)

    def mean(self, read: Reader) -> NDArray[np.float64]:
        """The mean over the test period."""
        kept = RunningSum(axis=0)
        for days in self.blocks():
            kept.add(read(days))
        return kept.mean

    def mapped(self, arm: str) -> Mapped:
        """Everything about an arm's maps, in one walk over the days."""
        read, read_std, satellite = self.arm(arm), self.arm(arm, "_std"), self.satellite()
        mean, std, level = (RunningSum(axis=0) for _ in range(3))
        contrast = []
        for days in self.blocks():
            values = read(days)
            mean.add(values)
            std.add(read_std(days))
            contrast.append(_spread(values))
            if satellite is not None:
                level.add(self.footprint_mean(values) - satellite(days))
        has_level = None if satellite is None else level.mean
        return Mapped(mean.mean, std.mean, np.concatenate(contrast), has_level)

    def footprint_mean(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(day, fy, fx) mean over the cells of each footprint that have a value."""
        r = self.cube.refinement
        days, ny, nx = values.shape
        parts = values.reshape(days, ny // r, r, nx // r, r)
        count = np.isfinite(parts).sum((2, 4))
        total = np.where(np.isfinite(parts), parts, 0).sum((2, 4))
        enough = 2 * count >= r * r
        return np.where(enough, total / np.maximum(count, 1), np.nan).astype(np.float32)

    def chosen_day(self, contrast: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """The day with most contrast among those with nearly most footprints, as (1,)."""
        satellite = self.satellite()
        seen = np.zeros(len(contrast), np.int64)
        if satellite is not None:
            parts = [np.isfinite(satellite(days)).sum((1, 2)) for days in self.blocks()]
            seen = np.concatenate(parts)
        shown = np.where(seen >= ENOUGH * seen.max(), contrast, -np.inf)
        best = int(np.argmax(np.where(np.isnan(shown), -np.inf, shown)))
        return self.days[best : best + 1]


def _spread(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(day,) standard deviation over cells with a value, NaN where there is none."""
    known = (day[np.isfinite(day)] for day in values)
    return np.array([day.std(dtype=np.float64) if day.size else np.nan for day in known])
