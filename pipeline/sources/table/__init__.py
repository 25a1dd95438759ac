"""Intake driver for a user's own table of probes: a CSV file whose columns the entry declares."""

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
    """Read a CSV file as points with daily values.

    The table has one row per probe, depth and time, or one column per depth.

    Days are UTC days if the time stamps have an offset or the entry gives a zone, and otherwise
    days of local standard time; the attribute `time_convention` of the dataset says which. The
    value of a day with several rows is the mean of its good rows, each weighted by the time until
    the next row, if they cover at least `min_share` of the day. A row is good if its flag is in
    `good` or empty, and its value lies in the range of the variable.

    Args:
      urlpath: Path or URL of the CSV file.
      mapping: {soilweave's name: {"from": column, "units": its units, "to": soilweave's units}}.
        The first variable is the target. If the table has a column per depth, `from` is
        {column: depth} or {column: [top, bottom]}.
      columns: {role: column}. The roles id, lat, lon (degrees) and time are required, unless the
        arguments id, lat and lon are given. Further roles are depth, or depth_from and depth_to
        of a layer; sensor, if an id has several sensors at one depth; and flag.
      time_zone: Time zone of the stamps: `UTC`, `offset` (each stamp has its own), `local
        standard`, a fixed offset such as `UTC-06:00`, or an IANA name. By default `offset` if any
        stamp has one, else `local standard`.
      depth: Depth of all sensors, if no column states it.
      depth_units: Units of the depths.
      depth_class_m: Smallest and largest depth, m. Only sensors in this range are read.
      good: Flags of good rows. An empty flag is always good.
      sensors: If an id has several sensors in the range, use their `mean`, or the `longest`
        record, which is the one with the most good days in the requested period.
      min_share: Share of a day that its good rows must cover, 0 to 1.
      missing: Numbers that stand for missing values.
      id: Id of the station, if the table has only one and no column states it.
      lat: Latitude of that station, degrees.
      lon: Longitude of that station, degrees.
      time_format: Format of stamps that are not in ISO 8601, such as `%d/%m/%Y %H:%M`.
      login: As in `Source`.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.
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
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If arguments are invalid or contradict each other; the error lists them all.
        """
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.columns, self.time_zone, self.time_format = columns, time_zone, time_format
        station = {"id": id, "lat": lat, "lon": lon}
        self.station = {role: str(value) for role, value in station.items() if value is not None}
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
        """The content of the file."""
        return remote.read(self.urlpath, self.storage_options, self.login)

    def digest(self) -> str:
        """Return the SHA-256 of the file, which is the same for a copy elsewhere."""
        return files.sha256(self._content)

    def to_dask(self) -> xr.Dataset:
        """Return daily values in soilweave's names and units, for all days of the table.

        The attribute `cadence` names sensors whose interval between readings changes.

        Raises:
          DataError: If the file is not as the catalog says; the error lists all differences.
        """
        rows, convention = self._read_rows()
        target, *others = self.mapping
        rows, codes = self._with_flags(rows.sort_values("time", kind="stable"), target)
        days = means(rows, target, others, self.min_share)
        table = merged(days, others, self.sensors, self.period)
        dataset = self._dataset(rows, table.rename(columns={"value": target}), codes, convention)
        cadence = changes(rows)
        return dataset.assign_attrs(cadence=cadence) if cadence else dataset

    read = to_dask

    def _read_rows(self) -> tuple[pd.DataFrame, str]:
        """Return the rows of sensors in the depth range, with their days, and the time convention.

        Raises:
          DataError: If the file is not as the catalog says; the error lists all differences.
        """
        import pandas as pd

        raw, problems = split(self._content)
        if raw.empty:
            raise DataError(
                http_errors.shown(self.urlpath),
                *(problems or ["the table has no rows"]),
                remedy=REMEDY,
            )
        parts, convention = list[pd.DataFrame](), ""
        for layer in self.layers:
            rows, layer_problems, convention = self._read_layer(raw, layer)
            parts.append(rows)
            problems += layer_problems
        if problems:
            hint = REMEDY
            if any(problem.startswith(stamps.NO_ISO) for problem in problems):
                hint += f"; `time_format` says how times are written, {stamps.FORM}"
            unique = dict.fromkeys(problems)  # several layers may have the same problems
            raise DataError(http_errors.shown(self.urlpath), *unique, remedy=hint)
        rows = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        top, bottom = self.depth_class_m
        in_range = (rows["depth_from"] >= top - _TINY) & (rows["depth_to"] <= bottom + _TINY)
        if not in_range.any():
            depths = sorted({f"{d:g}" for d in rows["depth_to"].unique()}, key=float)
            shown = ", ".join(depths[:8])
            problem = f"no sensor between {top:g} and {bottom:g} m; the depths are {shown} m"
            raise DataError(http_errors.shown(self.urlpath), problem, remedy=REMEDY)
        return rows[in_range], convention

    def _read_layer(self, raw: pd.DataFrame, layer: Layer) -> tuple[pd.DataFrame, list[str], str]:
        """Return the rows of a layer, messages about them, and the time convention of the days."""
        columns = self.columns | {role: f"({role})" for role in self.station}
        raw = raw.assign(**{columns[role]: value for role, value in self.station.items()})
        fills = {n: (*self.missing, *self.fills.get(c, ())) for n, c in layer.columns.items()}
        rows, problems = checked(raw, columns, layer.columns, fills)
        if rows.empty:
            return rows, problems, ""
        parsed, time_problems = stamps.stamps(rows, self.time_zone, self.time_format)
        rows = rows.assign(time=parsed.times, sensor=rows["sensor"] + layer.sensor)
        rows = self._with_depths(rows, layer.depth)
        rows["day"] = rows["time"].dt.floor("D")
        for name in self.mapping.keys() - layer.columns.keys():
            rows[name] = float("nan")
        complete = rows.dropna(subset=["time", "depth_from", "depth_to"])
        problems += time_problems + duplicates(complete, [*stamps.KEYS, "time"])
        return rows, problems, parsed.convention

    def _with_depths(self, rows: pd.DataFrame, depth: Ends | None) -> pd.DataFrame:
        """Return rows with `depth_from` and `depth_to` in m.

        Args:
          rows: The rows.
          depth: Top and bottom in the table's units; None if a column states it.
        """
        slope, offset = conversion(self.depth_units, "m")
        if self.depth is not None:
            depth = (self.depth, self.depth)
        if depth is not None:
            rows = rows.assign(depth_from=depth[0], depth_to=depth[1])
        ends = {n: rows[n if n in rows else "depth"] for n in ("depth_from", "depth_to")}
        return rows.assign(**{name: values * slope + offset for name, values in ends.items()})

    def _with_flags(self, rows: pd.DataFrame, target: str) -> tuple[pd.DataFrame, dict[str, int]]:
        """Return rows with the `code` of their flag and whether they are `good`; {flag: code}."""
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
        """Return the dataset of daily values.

        Args:
          rows: The rows, which have the coordinates of the places.
          table: Daily values with columns day, id, code and the variables.
          codes: {flag: code}.
          convention: Time convention of the days.
        """
        import numpy as np
        import pandas as pd
        import xarray as xr

        ids = list(rows["id"].unique())
        days = pd.date_range(table["day"].min(), table["day"].max(), freq="D", unit="ns")
        by_day = table.assign(day=table["day"].astype(days.dtype)).set_index(["day", "id"])
        day_and_id = pd.MultiIndex.from_product([days, ids])

        def array_of(name: str) -> NDArray[np.float64]:
            """Return (day, id) the values of a column, NaN where there is none."""
            return by_day[name].reindex(day_and_id).to_numpy("float64").reshape(len(days), len(ids))

        ends = {"lat": "first", "lon": "first", "depth_from": "min", "depth_to": "max"}
        places = rows.groupby("id").agg(ends).reindex(ids)
        coords = {name: ("place", places[name].to_numpy("float64")) for name in ends}
        variables = {s["from"]: (("time", "place"), array_of(n)) for n, s in self.mapping.items()}
        raw = xr.Dataset(variables, {"time": days, "place": [str(i) for i in ids], **coords})
        dataset = raw[[]].assign(self.translated(raw))
        if "flag" in self.columns:
            code = np.nan_to_num(array_of("code")).astype("int16")
            attrs = {
                "good": [0],
                "flag_values": [0, *codes.values()],
                "flag_meanings": " ".join(["good", *codes]),
            }
            dataset["provider_flag"] = (("time", "place"), code, attrs)
        return dataset.assign_attrs(time_convention=convention)


def _plain(value: Any) -> str:
    """Return a flag as text, which is the same for 0, 0.0 and `0`."""
    text = str(value).strip()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
