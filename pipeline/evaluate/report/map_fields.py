"""Read the fields that the report maps, and draw maps of fields and of values at sites.

`MapFields` reads one day, or means over the test period, of the maps, the truth and the satellite.
`mapped`, `draw_site_values` and `draw_colour_bar` draw them.
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

    Reader = Callable[[NDArray[np.datetime64]], NDArray[np.float32]]  # days to fields (day, y, x)


Line = tuple["NDArray[np.float64]", "NDArray[np.float64]"]  # x and y, metres of the grid
MIN_FOOTPRINT_SHARE = (
    0.8  # share of the largest number of footprints that a day on the page must have
)
_WIDTH = 3.4  # width of a map, inches
_MARGINS = (0.42, 0.22, 0.1, 0.06)  # of the axes, inches: left, bottom, right, top
_EMPTY_COLOUR = "#eceef1"  # colour where a map has no value


@dataclass(frozen=True)
class Scale:
    """A colour scale: name of the quantity, its unit, the colour map and the values of its ends."""

    name: str
    unit: str
    colour_map: str
    low: float
    high: float

    @classmethod
    def from_values(
        cls,
        name: str,
        unit: str,
        colour_map: str,
        values: list[NDArray[Any]],
        centred: bool = False,
    ) -> Scale:
        """Return a scale that spans all but the lowest and highest 2 % of the finite values.

        If `centred`, the middle of the scale is zero.
        """
        finite = np.concatenate([v[np.isfinite(v)].ravel() for v in values])
        if not finite.size:
            return cls(name, unit, colour_map, 0.0, 1.0)
        low, high = (float(q) for q in np.quantile(finite, (0.02, 0.98)))
        if centred:
            high = max(abs(low), abs(high), 1e-9)
            low = -high
        return cls(name, unit, colour_map, low, max(high, low + 1e-9))


@dataclass(frozen=True)
class Frame:
    """The region of a map, in metres of the grid.

    Attributes:
      bounds: left, bottom, right and top, metres.
      lat: (y,) latitude of the rows, degrees.
      lon: (x,) longitude of the columns, degrees.
      y: (y,) position of the rows, metres.
      x: (x,) position of the columns, metres.
      sites: x and y of the sites, metres.
      lines: borders to draw.
      n_sparse: number of cells with values, if they are so few that each is drawn as a large
        square; else 0.
      numbered: x and y of places to label 1, 2, 3 and so on, metres.
    """

    bounds: tuple[float, float, float, float]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    sites: Line
    lines: list[Line] = field(default_factory=list)
    n_sparse: int = 0
    numbered: Line | None = None

    @property
    def is_wide(self) -> bool:
        """Whether the region is more than 1.6 times as wide as high."""
        left, bottom, right, top = self.bounds
        return right - left > 1.6 * (top - bottom)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a map, inches."""
        left, bottom, right, top = self.bounds
        height = (_WIDTH - _MARGINS[0] - _MARGINS[2]) * (top - bottom) / (right - left)
        return _WIDTH, min(height, 2 * _WIDTH) + _MARGINS[1] + _MARGINS[3]


@dataclass(frozen=True)
class MapSummary:
    """Summaries over the test period of the maps of one arm.

    Attributes:
      mean: (y, x) mean over days.
      std: (y, x) mean over days of the predicted standard deviation.
      contrast: (day,) standard deviation over cells.
      level: (fy, fx) mean over days of the mean of a footprint's cells minus the satellite; None
        without a satellite.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    contrast: NDArray[np.float64]
    level: NDArray[np.float64] | None


@dataclass(frozen=True)
class MapFields:
    """Reads the fields of an experiment's test period, in blocks of days to limit the memory."""

    experiment: Experiment
    workspace: Workspace
    cube: Cube

    @property
    def days(self) -> NDArray[np.datetime64]:
        """(day,) days of the test period."""
        days = self.cube.days[self.cube.day_index(self.experiment.test_period)]
        return days.astype("datetime64[ns]")

    def day_blocks(self) -> list[NDArray[np.datetime64]]:
        """Return the days of the test period in blocks."""
        return schema.split_into_blocks(self.days)

    def arm_reader(self, arm: str, suffix: str = "") -> Reader:
        """Return a reader of an arm's map, or of its standard deviation with suffix "_std"."""
        maps = zarr_arrays.open_group(self.workspace.url("maps", f"{arm}.zarr"), "")
        array = maps[f"{self.experiment.target}{suffix}"]
        return lambda days: np.asarray(array.sel(time=days).values, np.float32)

    def truth_reader(self) -> Reader | None:
        """Return a reader of the truth of mapped cells; None if the truth is not known."""
        if self.experiment.sources.truth is None:
            return None
        truth = experiment_sources.open_truth(self.experiment)
        mask = self.cube.cells["mask"].values.astype(bool)
        return lambda days: np.where(mask, truth.on_days(days), np.float32(np.nan))

    def satellite_reader(self) -> Reader | None:
        """Return a reader of the satellite's footprints; None without a satellite."""
        if self.cube.footprints is None:
            return None
        array = self.cube.footprints[self.cube.target]
        return lambda days: np.asarray(array.sel(time=days).values, np.float32)

    def mean(self, read: Reader) -> NDArray[np.float64]:
        """Return the mean over the test period of the fields of a reader."""
        total = RunningSum(axis=0)
        for days in self.day_blocks():
            total.add(read(days))
        return total.mean

    def summarise(self, arm: str) -> MapSummary:
        """Return the summaries of an arm's maps, reading every day once."""
        read, read_std = self.arm_reader(arm), self.arm_reader(arm, "_std")
        read_satellite = self.satellite_reader()
        mean, std, level = (RunningSum(axis=0) for _ in range(3))
        contrast = []
        for days in self.day_blocks():
            values = read(days)
            mean.add(values)
            std.add(read_std(days))
            contrast.append(_spatial_std(values))
            if read_satellite is not None:
                level.add(self.footprint_mean(values) - read_satellite(days))
        mean_level = None if read_satellite is None else level.mean
        return MapSummary(mean.mean, std.mean, np.concatenate(contrast), mean_level)

    def footprint_mean(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (day, fy, fx) the mean over each footprint's cells with a value.

        It is NaN where less than half of the cells have a value. `values` is (day, y, x).
        """
        r = self.cube.refinement
        days, ny, nx = values.shape
        parts = values.reshape(days, ny // r, r, nx // r, r)
        count = np.isfinite(parts).sum((2, 4))
        total = np.where(np.isfinite(parts), parts, 0).sum((2, 4))
        has_enough = 2 * count >= r * r
        return np.where(has_enough, total / np.maximum(count, 1), np.nan).astype(np.float32)

    def choose_day(self, contrast: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """Return (1,) the day of highest contrast (day,) among days with many footprints."""
        read = self.satellite_reader()
        n_footprints = np.zeros(len(contrast), np.int64)
        if read is not None:
            counts = [np.isfinite(read(days)).sum((1, 2)) for days in self.day_blocks()]
            n_footprints = np.concatenate(counts)
        many = n_footprints >= MIN_FOOTPRINT_SHARE * n_footprints.max()
        usable = np.where(many & ~np.isnan(contrast), contrast, -np.inf)
        best = int(np.argmax(usable))
        return self.days[best : best + 1]


def _spatial_std(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (day,) the standard deviation over cells with a value; NaN on days without any."""
    finite = (day[np.isfinite(day)] for day in values)
    return np.array([day.std(dtype=np.float64) if day.size else np.nan for day in finite])


def draw_field(frame: Frame, values: NDArray[Any], scale: Scale, alt: str) -> Picture:
    """Draw a field (y, x) of cells or footprints that fills the frame, and the sites as dots."""
    with style.canvas(*frame.size, layout="none") as figure:
        axes = _add_map_axes(figure, frame)
        colours: dict[str, Any] = {"cmap": scale.colour_map, "vmin": scale.low, "vmax": scale.high}
        if frame.n_sparse:
            _draw_squares(axes, frame, values, colours)
        else:
            left, bottom, right, top = frame.bounds
            extent = (left, right, bottom, top)
            axes.imshow(
                np.ma.masked_invalid(values), extent=extent, interpolation="nearest", **colours
            )
            axes.scatter(*frame.sites, s=9, c="white", edgecolors="black", linewidths=0.7)
        if frame.numbered is not None:
            _draw_numbers(axes, frame.numbered)
        return style.embed_figure(figure, alt, "png")


def draw_site_values(
    frame: Frame,
    values: NDArray[Any],
    blocks: NDArray[Any],
    scale: Scale,
    alt: str,
    texts: list[str],
    links: list[str],
) -> Picture:
    """Draw values at the sites (site,), over a background of blocks.

    Args:
      frame: the region.
      values: (site,) values, NaN where missing; those are drawn as crosses.
      blocks: (fy, fx) 0 or 1, so that neighbouring blocks differ; -1 without a block.
      scale: the colour scale.
      alt: what the map shows, in words.
      texts: what to show where the pointer is, by site.
      links: id of the element of the page that each site links to.
    """
    from matplotlib.colors import ListedColormap

    with style.canvas(*frame.size, layout="none") as figure:
        axes = _add_map_axes(figure, frame)
        left, bottom, right, top = frame.bounds
        axes.imshow(
            np.ma.masked_less(blocks, 0),
            extent=(left, right, bottom, top),
            cmap=ListedColormap(["#ffffff", "#e6eaf0"]),
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        finite = np.isfinite(values)
        x, y = frame.sites
        axes.scatter(x[~finite], y[~finite], s=14, marker="x", c="#888888", linewidths=0.8)
        axes.scatter(
            x[finite],
            y[finite],
            s=float(np.clip(2000 / max(len(x), 1), 13, 34)),
            c=values[finite],
            cmap=scale.colour_map,
            vmin=scale.low,
            vmax=scale.high,
            edgecolors="black",
            linewidths=0.6,
        )
        points = style.hover_points(axes, x, y, texts, links)
        return style.embed_figure(figure, alt, "png", points)


def draw_colour_bar(scale: Scale) -> Picture:
    """Draw the colour scale of maps as a separate picture."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    with style.canvas(_WIDTH, 0.62) as figure:
        axes = figure.subplots()
        colours = ScalarMappable(Normalize(scale.low, scale.high), scale.colour_map)
        bar = figure.colorbar(colours, cax=axes, orientation="horizontal", extend="both")
        bar.outline.set_visible(False)
        style.short_ticks(axes.xaxis)
        axes.set_xlabel(style.label_with_unit(scale.name, scale.unit))
        ends = (
            f"{style.format_tick(round(scale.low, 4))} to {style.format_tick(round(scale.high, 4))}"
        )
        return style.embed_figure(figure, f"Colour scale of {scale.name}, {ends} {scale.unit}")


def _draw_squares(axes: Axes, frame: Frame, values: NDArray[Any], colours: dict[str, Any]) -> None:
    """Draw the values of few cells as squares, which nearly touch if cells are evenly spread."""
    left, bottom, right, top = frame.bounds
    ny, nx = values.shape
    row, col = np.nonzero(np.isfinite(values))
    x = left + (col + 0.5) * (right - left) / nx
    y = top - (row + 0.5) * (top - bottom) / ny
    width, height = frame.size
    square_points = 72 * 72 * width * height / frame.n_sparse
    axes.set_facecolor("white")
    axes.scatter(
        x, y, s=0.3 * square_points, c=values[row, col], marker="s", linewidths=0, **colours
    )


def _draw_numbers(axes: Axes, places: Line) -> None:
    """Write 1, 2, 3 and so on at places; lower numbers cover higher ones."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.2, foreground="white")]
    bold: dict[str, Any] = {"fontsize": 7.5, "fontweight": "bold", "color": "#b03000"}
    for number, (x, y) in enumerate(zip(*places, strict=True), 1):
        centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 100 - number}
        axes.text(x, y, str(number), path_effects=halo, **bold, **centred)


def _add_map_axes(figure: Figure, frame: Frame) -> Axes:
    """Add axes in metres that are labelled in degrees, and draw the borders."""
    width, height = frame.size
    margin_left, margin_bottom, margin_right, margin_top = _MARGINS
    axes = figure.add_axes(
        (
            margin_left / width,
            margin_bottom / height,
            (width - margin_left - margin_right) / width,
            (height - margin_bottom - margin_top) / height,
        )
    )
    axes.set_facecolor(_EMPTY_COLOUR)
    left, bottom, right, top = frame.bounds
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(True)
    if frame.lines:  # as one line with gaps, which is drawn much faster than many
        gap = np.full((2, 1), np.nan)
        joined = np.concatenate([part for line in frame.lines for part in (line, gap)], axis=1)
        axes.plot(*joined, color="#5b6472", linewidth=0.5, zorder=2)
    lon, lat = _tick_degrees(frame.lon), _tick_degrees(frame.lat)
    axes.set_xticks(np.interp(lon, frame.lon, frame.x), [_format_degrees(v, "E", "W") for v in lon])
    northward = np.interp(lat, frame.lat[::-1], frame.y[::-1])
    axes.set_yticks(northward, [_format_degrees(v, "N", "S") for v in lat])
    axes.tick_params(length=2.5, labelsize=7.5, pad=2)
    return axes


def _tick_degrees(along: NDArray[np.float64]) -> list[float]:
    """Return at most about four round degrees within the range of `along`."""
    low, high = float(along.min()), float(along.max())
    steps = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60)
    step = next((s for s in steps if (high - low) / s <= 4), 60)
    return [k * step for k in range(int(np.ceil(low / step)), int(high // step) + 1)]


def _format_degrees(degrees: float, positive: str, negative: str) -> str:
    """Format degrees with the letter of the hemisphere; 0 has none."""
    if degrees == 0:
        return "0°"
    return f"{abs(degrees):g}°{positive if degrees > 0 else negative}"
