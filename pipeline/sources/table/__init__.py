"""Divide a wide table, which has one column per depth of a variable, into layers.

Check how a catalog entry declares a table.

Intake driver for a user's own table of probes: a CSV file whose columns the entry declares.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pipeline import files
from pipeline.errors import DataError
from pipeline.experiment.variables import VARIABLES
from pipeline.sources.shared import access, http_errors
from pipeline.sources.shared.driver import CORRECT_FILE_HINT, Source
from pipeline.sources.shared.driver import EntryMapping as driver_mapping
from pipeline.sources.shared.units import linear_conversion
from pipeline.sources.table import rows as table_rows
from pipeline.sources.table.days import daily_means, describe_cadence_changes, merge_sensors
from pipeline.sources.table.rows import duplicate_problems, parse_rows
from pipeline.sources.table.text import parse_csv

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray


DepthRange = tuple[float, float]


class Layer(NamedTuple):
    """The columns of a table that belong to one depth.

    Attributes:
      columns: {soilweave's name: column}, without variables that have no column at this depth.
      depth: Top and bottom in the table's units; None if a column or the entry states it.
      sensor: Number of the column, if several have this depth; otherwise empty.
    """

    columns: dict[str, str]
    depth: DepthRange | None = None
    sensor: str = ""


def split_layers(mapping: dict[str, dict[str, Any]]) -> list[Layer]:
    """Return one layer for each column of the target.

    Args:
      mapping: {soilweave's name: {"from": a column, or {column: depth}, or {column: [top,
        bottom]}}}; the first variable is the target.
    """
    (target, spec), *others = mapping.items()
    if not isinstance(spec["from"], dict):
        return [Layer({name: spec["from"] for name, spec in mapping.items()})]
    depths = [depth_range(depth) for depth in spec["from"].values()]
    layers, n_before = list[Layer](), Counter[DepthRange]()
    for column, depth in zip(spec["from"], depths, strict=True):
        columns = {target: str(column)}
        for name, other in others:
            if not isinstance(other["from"], dict):
                columns[name] = other["from"]
                continue
            at_depth = [str(c) for c, d in other["from"].items() if depth_range(d) == depth]
            if at_depth:
                # The second column of the target at a depth goes with the second of the other.
                columns[name] = at_depth[min(n_before[depth], len(at_depth) - 1)]
        n_before[depth] += 1
        sensor = str(n_before[depth]) if depths.count(depth) > 1 else ""
        layers.append(Layer(columns, depth, sensor))
    return layers


def column_names(spec: dict[str, Any]) -> str:
    """Return the column of a variable, or the names of its columns in a wide table."""
    return ", ".join(map(str, spec["from"])) if isinstance(spec["from"], dict) else spec["from"]


def layer_faults(mapping: dict[str, dict[str, Any]]) -> list[str]:
    """Return a message for each invalid depth in a mapping."""
    wide = {name: s["from"] for name, s in mapping.items() if isinstance(s["from"], dict)}
    problems = [
        f"mapping of {name}, column {column}: depth '{depth}', expected a number or [top, bottom]"
        for name, columns in wide.items()
        for column, depth in columns.items()
        if not _is_depth(depth)
    ]
    problems += [
        f"mapping of {name}: expected a column" for name, columns in wide.items() if not columns
    ]
    if wide and next(iter(mapping)) not in wide:
        target = next(iter(mapping))
        problems.append(f"mapping of {target}: expected the depth of its column too")
    return problems


def depth_range(depth: Any) -> DepthRange:
    """Return top and bottom of a single depth or of a pair [top, bottom]."""
    top, bottom = depth if isinstance(depth, (list, tuple)) else (depth, depth)
    return float(top), float(bottom)


def _is_depth(depth: Any) -> bool:
    """Return whether a value is a depth, or a pair of which the first is not deeper."""
    try:
        top, bottom = depth_range(depth)
    except (TypeError, ValueError):
        return False
    return 0 <= top <= bottom


COLUMN_ROLES = ("id", "lat", "lon", "time", "depth", "depth_from", "depth_to", "sensor", "flag")
REQUIRED_ROLES = ("id", "lat", "lon", "time")


class Declaration(Protocol):
    """The arguments of a table, as `TableSource` keeps them."""

    mapping: dict[str, dict[str, Any]]
    columns: Mapping[str, str]
    station: Mapping[str, str]
    depth: Any
    depth_units: str
    time_format: str | None
    time_zone: str | None
    good: set[Any]
    sensors: str
    min_share: float


def argument_problems(table: Declaration) -> list[str]:
    """Return a message for each invalid argument of a table."""
    roles, station = table.columns.keys(), table.station
    absent = [role for role in REQUIRED_ROLES if role not in roles and role not in station]
    problems = [f"columns: {role} missing" for role in absent]
    problems += [
        f"{role} and columns.{role}: expected only one of them" for role in station if role in roles
    ]
    for role, limit in (("lat", 90), ("lon", 180)):
        if role in station and not _is_within(station[role], limit):
            problems.append(f"{role} {station[role]}: expected -{limit} to {limit} degrees")
    problems += [
        f"columns: unknown role {role}, expected one of {', '.join(COLUMN_ROLES)}"
        for role in roles
        if role not in COLUMN_ROLES
    ]
    if ("depth_from" in roles) != ("depth_to" in roles):
        problems.append("columns: expected both depth_from and depth_to, or neither")
    is_wide = any(isinstance(spec["from"], dict) for spec in table.mapping.values())
    depths = ("depth" in roles) + ("depth_from" in roles) + (table.depth is not None) + is_wide
    if depths != 1:
        problems.append(
            "depth: expected exactly one of columns.depth, columns.depth_from and columns.depth_to,"
            " depth, or a depth for each column in the mapping"
        )
    problems += layer_faults(table.mapping)
    if table.time_format is not None:
        problems += table_rows.time_format_problems(table.time_format)
    if "flag" in roles and not table.good:
        problems.append("columns.flag: expected `good` too, which lists the flags of good rows")
    if table.sensors not in ("mean", "longest"):
        problems.append(f"sensors '{table.sensors}': expected 'mean' or 'longest'")
    if not 0 <= table.min_share <= 1:
        problems.append(f"min_share {table.min_share}: expected a number from 0 to 1")
    try:
        table_rows.parse_time_zone(table.time_zone or table_rows.LOCAL_STANDARD)
    except ValueError as error:
        problems.append(str(error))
    pairs = [(s["units"], s.get("to", s["units"])) for s in table.mapping.values()]
    for units, target_units in [*pairs, (table.depth_units, "m")]:
        try:
            linear_conversion(units, target_units)
        except DataError as error:
            problems.append(str(error))
    return problems


def _is_within(text: str, limit: float) -> bool:
    """Return whether a text is a number from -limit to limit."""
    try:
        return abs(float(text)) <= limit
    except ValueError:
        return False


_DEPTH_TOLERANCE = 1e-6  # m


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
        mapping: driver_mapping | list[driver_mapping],
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
        self.good = {_normalize_flag(value) for value in good or []}
        self.sensors, self.min_share, self.missing = sensors, min_share, tuple(missing)
        problems = argument_problems(self)
        if problems:
            raise ValueError("; ".join(problems))
        self.layers = split_layers(self.mapping)
        self.mapping = {n: {**s, "from": column_names(s)} for n, s in self.mapping.items()}

    @cached_property
    def _content(self) -> bytes:
        """The content of the file."""
        return access.read_file(self.urlpath, self.storage_options, self.login)

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
        days = daily_means(rows, target, others, self.min_share)
        table = merge_sensors(days, others, self.sensors, self.period)
        dataset = self._dataset(rows, table.rename(columns={"value": target}), codes, convention)
        cadence = describe_cadence_changes(rows)
        return dataset.assign_attrs(cadence=cadence) if cadence else dataset

    read = to_dask

    def _read_rows(self) -> tuple[pd.DataFrame, str]:
        """Return the rows of sensors in the depth range, with their days, and the time convention.

        Raises:
          DataError: If the file is not as the catalog says; the error lists all differences.
        """
        import pandas as pd

        raw, problems = parse_csv(self._content)
        if raw.empty:
            raise DataError(
                http_errors.format_url(self.urlpath),
                *(problems or ["the table has no rows"]),
                remedy=CORRECT_FILE_HINT,
            )
        parts, convention = list[pd.DataFrame](), ""
        for layer in self.layers:
            rows, layer_problems, convention = self._read_layer(raw, layer)
            parts.append(rows)
            problems += layer_problems
        if problems:
            hint = CORRECT_FILE_HINT
            if any(problem.startswith(table_rows.NOT_ISO) for problem in problems):
                hint += f"; `time_format` says how times are written, {table_rows.FORMAT_EXAMPLE}"
            unique = dict.fromkeys(problems)  # several layers may have the same problems
            raise DataError(http_errors.format_url(self.urlpath), *unique, remedy=hint)
        rows = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        top, bottom = self.depth_class_m
        in_range = (rows["depth_from"] >= top - _DEPTH_TOLERANCE) & (
            rows["depth_to"] <= bottom + _DEPTH_TOLERANCE
        )
        if not in_range.any():
            depths = sorted({f"{d:g}" for d in rows["depth_to"].unique()}, key=float)
            shown = ", ".join(depths[:8])
            problem = f"no sensor between {top:g} and {bottom:g} m; the depths are {shown} m"
            raise DataError(http_errors.format_url(self.urlpath), problem, remedy=CORRECT_FILE_HINT)
        return rows[in_range], convention

    def _read_layer(self, raw: pd.DataFrame, layer: Layer) -> tuple[pd.DataFrame, list[str], str]:
        """Return the rows of a layer, messages about them, and the time convention of the days."""
        columns = self.columns | {role: f"({role})" for role in self.station}
        raw = raw.assign(**{columns[role]: value for role, value in self.station.items()})
        fills = {n: (*self.missing, *self.fills.get(c, ())) for n, c in layer.columns.items()}
        rows, problems = parse_rows(raw, columns, layer.columns, fills)
        if rows.empty:
            return rows, problems, ""
        parsed, time_problems = table_rows.parse_times(rows, self.time_zone, self.time_format)
        rows = rows.assign(time=parsed.times, sensor=rows["sensor"] + layer.sensor)
        rows = self._with_depths(rows, layer.depth)
        rows["day"] = rows["time"].dt.floor("D")
        for name in self.mapping.keys() - layer.columns.keys():
            rows[name] = float("nan")
        complete = rows.dropna(subset=["time", "depth_from", "depth_to"])
        problems += time_problems + duplicate_problems(complete, [*table_rows.SERIES_KEYS, "time"])
        return rows, problems, parsed.convention

    def _with_depths(self, rows: pd.DataFrame, depth: DepthRange | None) -> pd.DataFrame:
        """Return rows with `depth_from` and `depth_to` in m.

        Args:
          rows: The rows.
          depth: Top and bottom in the table's units; None if a column states it.
        """
        slope, offset = linear_conversion(self.depth_units, "m")
        if self.depth is not None:
            depth = (self.depth, self.depth)
        if depth is not None:
            rows = rows.assign(depth_from=depth[0], depth_to=depth[1])
        ends = {n: rows[n if n in rows else "depth"] for n in ("depth_from", "depth_to")}
        return rows.assign(**{name: values * slope + offset for name, values in ends.items()})

    def _with_flags(self, rows: pd.DataFrame, target: str) -> tuple[pd.DataFrame, dict[str, int]]:
        """Return rows with the `code` of their flag and whether they are `good`; {flag: code}."""
        flag = rows["flag"].map(_normalize_flag).str.replace(r"\s+", "_", regex=True)
        good = flag.isin({"", *(text.replace(" ", "_") for text in self.good)})
        codes = {text: i + 1 for i, text in enumerate(sorted(set(flag[~good])))}
        code = flag.map(codes).where(~good, 0).astype("int64")
        spec, variable = self.mapping[target], VARIABLES.get(target)
        if variable is not None and variable.units == spec.get("to", spec["units"]):
            slope, offset = linear_conversion(spec["units"], variable.units)
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
        dataset = raw[[]].assign(self.translate(raw))
        if "flag" in self.columns:
            code = np.nan_to_num(array_of("code")).astype("int16")
            attrs = {
                "good": [0],
                "flag_values": [0, *codes.values()],
                "flag_meanings": " ".join(["good", *codes]),
            }
            dataset["provider_flag"] = (("time", "place"), code, attrs)
        return dataset.assign_attrs(time_convention=convention)


def _normalize_flag(value: Any) -> str:
    """Return a flag as text, which is the same for 0, 0.0 and `0`."""
    text = str(value).strip()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
