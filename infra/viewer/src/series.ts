/** The series of a cell: read together, written as CSV and as lines of Python. */
import {dayText} from './days';
import type {Cell, Place} from './grid';
import {decimals} from './layers';
import {decode, FLAG, type Maps} from './maps';
import {type Dates, onDays, type Values} from './sites';
import {interval} from './words';

export interface Series {
  days: number[];
  mean: Values;
  low: Values;
  high: Values;
  std: Values;
  flags: number[];
  satellite: Values;
  /** The values of the site in the cell, and what was predicted without it. */
  site: Values;
  heldOut: Values;
}

export interface Observed {
  satellite: Dates | undefined;
  site: Dates | undefined;
  heldOut: Dates | undefined;
}

export async function readSeries(maps: Maps, cell: Cell, observed: Observed): Promise<Series> {
  const {target} = maps;
  const [means, stds, flags] = await Promise.all(
    [target, `${target}_std`, FLAG].map((name) => maps.seriesOf(name, cell)),
  );
  const days = Array.from(means!, (_, i) => maps.days[0] + i);
  const mean = decoded(maps, target, means!);
  const std = decoded(maps, `${target}_std`, stds!);
  const bounds = mean.map((value, i) => {
    const error = std[i];
    return value === null || error == null ? [null, null] : interval(maps, value, error);
  });
  return {
    days,
    mean,
    std,
    low: bounds.map((pair) => pair[0]!),
    high: bounds.map((pair) => pair[1]!),
    flags: Array.from(flags!),
    satellite: onDays(observed.satellite, days),
    site: onDays(observed.site, days),
    heldOut: onDays(observed.heldOut, days),
  };
}

function decoded(maps: Maps, name: string, stored: ArrayLike<number>): Values {
  const variable = maps.variable(name);
  return Array.from(stored, (number) => decode(variable, number) ?? null);
}

/** All columns of a series, one line for each day. */
export function asCsv(maps: Maps, series: Series, about: string[]): string {
  const digits = decimals(maps.variable(maps.target));
  const columns: [string, Values][] = [
    [maps.target, series.mean],
    [`${maps.target}_std`, series.std],
    ['low_90', series.low],
    ['high_90', series.high],
    ['quality_flag', series.flags],
  ];
  const optional: [string, Values][] = [
    ['satellite_footprint', series.satellite],
    ['site_observed', series.site],
    ['site_held_out', series.heldOut],
  ];
  columns.push(...optional.filter(([, values]) => values.some((value) => value !== null)));
  const cell = (name: string, value: number | null) =>
    value === null ? '' : name === 'quality_flag' ? String(value) : value.toFixed(digits);
  const lines = series.days.map((day, i) =>
    [dayText(day), ...columns.map(([name, values]) => cell(name, values[i] ?? null))].join(','),
  );
  const header = ['date', ...columns.map(([name]) => name)].join(',');
  return [...about.map((line) => `# ${line}`), header, ...lines, ''].join('\n');
}

/** Lines of Python that read the same series. */
export function asPython(source: string, arm: string, target: string, place: Place): string {
  const [lat, lon] = [place.lat.toFixed(4), place.lon.toFixed(4)];
  return `import xarray as xr

maps = xr.open_zarr("${source}/maps/${arm}.zarr", group="series").swap_dims(y="lat", x="lon")
cell = maps.sel(lat=${lat}, lon=${lon}, method="nearest")
print(cell[["${target}", "${target}_std", "quality_flag"]].to_dataframe())
`;
}
