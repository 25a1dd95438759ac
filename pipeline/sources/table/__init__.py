"""A table of probes of one's own: a CSV with declared columns, brought to daily points."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pipeline import files
from pipeline.errors import DataError
from pipeline.names import VARIABLES
from pipeline.sources import http_errors, remote
from pipeline.sources.form import REMEDY, Mapping, Source
from pipeline.sources.table import form, layers, stamps
from pipeline.sources.table.days import changes, means, merged
from pipeline.sources.table.rows import checked, duplicates
from pipeline.sources.table.text import split
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.table.layers import Ends, Layer

_TINY = 1e-6  # m


class TableSource(Source):
    """Intake driver for a CSV with a row per probe, depth and time, or a column per depth.

    Values of a day are those of UTC where stamps carry an offset or a zone is given; otherwise of
    local standard time (dataset attribute `time_convention`). A day of sub-daily rows is the mean
    of its good rows, each weighed by the time until the next, where they cover at least
    `min_share` of the day. Good rows have a flag of `good`, or none, and lie in the variable's
    range. Sensors within `depth_class_m` are used.

    Args:
      urlpath: the CSV, a path or a URL.
      mapping: {our name: {"from": column, "units": its units, "to": our units}}; the first is the
        target. Of a table with a column per depth, `from` is {column: depth} or {column: [top,
        bottom]}.
      columns: {role: column}: id, lat, lon (degrees) and time must be there; depth, or depth_from
        and depth_to of a layer; sensor, where an id has several at one depth; flag.
      time_zone: of the stamps: `UTC`, `offset` (each carries its own), `local standard`,
        `UTC-06:00` or the like, or an IANA name; none: `offset` where they carry one, else
        `local standard`.
      depth: depth of every sensor, where no column says it.
      depth_units: of depths.
      depth_class_m: least and greatest depth that is used, m.
      good: flags of good rows; an empty flag is good.
      sensors: of several used sensors of an id: their `mean`, or the record that is `longest` in
        the wanted period, by its good days.
      min_share: 0..1.
      missing: numbers that stand for nothing.
      id: of the only station, where no column says it.
      lat: its latitude, likewise, degrees.
      lon: its longitude, likewise, degrees.
      time_format: of stamps that are not ISO 8601, such as `%d/%m/%Y %H:%M`.
      storage_options: passed to fsspec.
    """

    name = "soilweave_table"

    def __init__(
        self,
        urlpath: str,
        mapping: Mapping | list[Mapping],
        columns: dict[str, str],
        time_zone: str | None = None,
        depth: float | None = None,
        depth_units: str = "m",
        depth_class_m: tuple[float, float] = (0.0, 0.075),
        good: list[Any] | None = None,
        sensors: Literal["mean", "longest"] = "mean",
        min_share: float = 0.5,
        missing: tuple[float, ...] = (-9999.0,),
        id: str | None = None,
        lat: float | None = None,
        lon: float | None = None,
        time_format: str | None = None,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.columns, self.time_zone, self.time_format = columns, time_zone, time_format
        station = {"id": id, "lat": lat, "lon": lon}
        self.station = {role: str(told) for role, told in station.items() if told is not None}
        self.depth, self.depth_units, self.depth_class_m = depth, depth_units, depth_class_m
        self.good = {_plain(value) for value in good or []}
        self.sensors, self.min_share, self.missing = sensors, min_share, tuple(missing)
        problems = form.faults(self)
        if problems:
            raise ValueError("; ".join(problems))
        self.layers = layers.of(self.mapping)
        self.mapping = {n: {**s, "from": layers.named(s)} for n, s in self.mapping.items()}

    @cached_property
    def _content(self) -> bytes:
        return remote.read(self.urlpath, self.storage_options, self.login)

    def digest(self) -> str:
        """SHA-256 of the file: a copy elsewhere has the same."""
        return files.sha256(self._content)

    def to_dask(self) -> xr.Dataset:
        """Daily values in our names and units, from the first to the last day of the table.

        The attribute `cadence` tells of sensors that change theirs.

        Raises:
          DataError: listing every way in which the file is not as the catalog says.
        """
        rows, convention = self._rows()
        target, *others = self.mapping
        rows, codes = self._judged(rows.sort_values("time", kind="stable"), target)
        days = means(rows, target, others, self.min_share)
        table = merged(days, others, self.sensors, self.period)
        made = self._dataset(rows, table.rename(columns={"value": target}), codes, convention)
        told = changes(rows)
        return made.assign_attrs(cadence=told) if told else made

    read = to_dask

    def _rows(self) -> tuple[pd.DataFrame, str]:
        """Checked rows of sensors in the depth class, with their days; and the days' convention."""
        import pandas as pd

        raw, problems = split(self._content)
        if raw.empty:
            raise DataError(
                http_errors.shown(self.urlpath), *(problems or ["no rows"]), remedy=REMEDY
            )
        parts, convention = list[pd.DataFrame](), ""
        for layer in self.layers:
            rows, found, convention = self._part(raw, layer)
            parts.append(rows)
            problems += found
        if problems:
            remedy = REMEDY
            if any(problem.startswith(stamps.NO_ISO) for problem in problems):
                remedy += f"; `time_format` says how times are written, {stamps.FORM}"
            unique = dict.fromkeys(problems)  # of each layer the same
            raise DataError(http_errors.shown(self.urlpath), *unique, remedy=remedy)
        rows = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        top, bottom = self.depth_class_m
        used = (rows["depth_from"] >= top - _TINY) & (rows["depth_to"] <= bottom + _TINY)
        if not used.any():
            depths = sorted({f"{d:g}" for d in rows["depth_to"].unique()}, key=float)
            shown = ", ".join(depths[:8])
            problem = f"no sensor between {top:g} and {bottom:g} m; depths are {shown} m"
            raise DataError(http_errors.shown(self.urlpath), problem, remedy=REMEDY)
        return rows[used], convention

    def _part(self, raw: pd.DataFrame, layer: Layer) -> tuple[pd.DataFrame, list[str], str]:
        """Rows of one layer, their problems, and the convention of the days."""
        columns = self.columns | {role: f"({role})" for role in self.station}
        raw = raw.assign(**{columns[role]: told for role, told in self.station.items()})
        fills = {n: (*self.missing, *self.fills.get(c, ())) for n, c in layer.columns.items()}
        rows, problems = checked(raw, columns, layer.columns, fills)
        if rows.empty:
            return rows, problems, ""
        stamped, found = stamps.stamps(rows, self.time_zone, self.time_format)
        rows = rows.assign(time=stamped.times, sensor=rows["sensor"] + layer.sensor)
        rows = self._with_depths(rows, layer.depth)
        rows["day"] = rows["time"].dt.floor("D")
        for name in self.mapping.keys() - layer.columns.keys():
            rows[name] = float("nan")
        whole = rows.dropna(subset=["time", "depth_from", "depth_to"])
        problems += found + duplicates(whole, [*stamps.KEYS, "time"])
        return rows, problems, stamped.convention

    def _with_depths(self, rows: pd.DataFrame, layer: Ends | None) -> pd.DataFrame:
        slope, offset = conversion(self.depth_units, "m")
        if self.depth is not None:
            layer = (self.depth, self.depth)
        if layer is not None:
            rows = rows.assign(depth_from=layer[0], depth_to=layer[1])
        ends = {n: rows[n if n in rows else "depth"] for n in ("depth_from", "depth_to")}
        return rows.assign(**{name: values * slope + offset for name, values in ends.items()})

    def _judged(self, rows: pd.DataFrame, target: str) -> tuple[pd.DataFrame, dict[str, int]]:
        """Rows with `code` of their flag and whether they are `good`; and the codes of flags."""
        flag = rows["flag"].map(_plain).str.replace(r"\s+", "_", regex=True)
        good = flag.isin({"", *(text.replace(" ", "_") for text in self.good)})
        codes = {text: i + 1 for i, text in enumerate(sorted(set(flag[~good])))}
        code = flag.map(codes).where(~good, 0).astype("int64")
        spec, variable = self.mapping[target], VARIABLES.get(target)
        if variable is not None and variable.units == spec.get("to", spec["units"]):
            slope, offset = conversion(spec["units"], variable.units)
            values = (rows[target] * slope + offset).astype("float32")
            good &= ~((values < variable.minimum) | (values > variable.maximum))
        return rows.assign(code=code, good=good), codes

    def _dataset(
        self, rows: pd.DataFrame, table: pd.DataFrame, codes: dict[str, int], convention: str
    ) -> xr.Dataset:
        import numpy as np
        import pandas as pd
        import xarray as xr

        ids = list(rows["id"].unique())
        days = pd.date_range(table["day"].min(), table["day"].max(), freq="D", unit="ns")
        by_day = table.assign(day=table["day"].astype(days.dtype)).set_index(["day", "id"])
        every = pd.MultiIndex.from_product([days, ids])

        def placed(name: str) -> NDArray[np.float64]:
            return by_day[name].reindex(every).to_numpy("float64").reshape(len(days), len(ids))

        ends = {"lat": "first", "lon": "first", "depth_from": "min", "depth_to": "max"}
        places = rows.groupby("id").agg(ends).reindex(ids)
        coords = {name: ("place", places[name].to_numpy("float64")) for name in ends}
        made = {s["from"]: (("time", "place"), placed(name)) for name, s in self.mapping.items()}
        raw = xr.Dataset(made, {"time": days, "place": [str(i) for i in ids], **coords})
        dataset = raw[[]].assign(self.translated(raw))
        if "flag" in self.columns:
            code = np.nan_to_num(placed("code")).astype("int16")
            told = {
                "flag_values": [0, *codes.values()],
                "flag_meanings": " ".join(["good", *codes]),
            }
            dataset["provider_flag"] = (("time", "place"), code, {"good": [0], **told})
        return dataset.assign_attrs(time_convention=convention)


def _plain(value: Any) -> str:
    """A flag as text: 0, 0.0 and `0` are one."""
    text = str(value).strip()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
