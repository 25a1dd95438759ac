/** What is known of a cell on a day, in words. */
import type {Place} from './grid';
import {decimals, inWords, isVolumetric, unitsInWords, withUnits} from './layers';
import {FLAG, type Maps, NO_INPUTS} from './maps';

/** The numbers of a cell on a day; undefined is missing. */
export interface Reading {
  value: number | undefined;
  std: number | undefined;
  percentile: number | undefined;
  anomaly: number | undefined;
  distance: number | undefined;
  flag: number;
}

const SATELLITE = 'satellite';

/** Value minus and plus so many standard deviations, cut at the limits of the variable. */
export function interval(maps: Maps, value: number, std: number): [number, number] {
  const factor = Number(maps.variable(`${maps.target}_std`).attributes['interval_factor_90'] ?? 1.6449);
  const {attributes, scale} = maps.variable(maps.target);
  const [low, high] = (attributes['valid_range'] as number[] | undefined) ?? [-Infinity, Infinity];
  const limited = (bound: number) => Math.min(high! * scale, Math.max(low! * scale, bound));
  return [limited(value - factor * std), limited(value + factor * std)];
}

/** Whose readings the interval holds: a probe's, or for the arm `satellite` the satellite's. */
export function whose(arm: string): string {
  if (arm === SATELLITE) return 'as the satellite would see it, were its footprint this cell';
  return 'for a probe at a typical place in this cell';
}

export function valueInWords(maps: Maps, reading: Reading): string {
  if (reading.value !== undefined) return inWords(reading.value, maps.variable(maps.target));
  if (reading.flag & NO_INPUTS) return 'no value: the cell has no inputs, as on water';
  return 'no value';
}

export function intervalInWords(maps: Maps, arm: string, reading: Reading): string {
  if (reading.value === undefined) return '';
  if (reading.std === undefined) return 'no interval: the models gave no standard deviation';
  const [low, high] = interval(maps, reading.value, reading.std);
  const variable = maps.variable(maps.target);
  const shown = (bound: number) =>
    isVolumetric(variable) ? String(Math.round(100 * bound)) : bound.toFixed(decimals(variable));
  const unit = isVolumetric(variable) ? '%' : unitsInWords(variable.units);
  return `between ${shown(low)} and ${shown(high)} ${unit} in 9 of 10 cases, ${whose(arm)}`;
}

export function percentileInWords(maps: Maps, reading: Reading): string {
  const {percentile, anomaly} = reading;
  if (percentile === undefined) return '';
  const moist = isVolumetric(maps.variable(maps.target));
  const [more, less] = moist ? ['wetter', 'drier'] : ['more', 'less'];
  const period = maps.variable(`${maps.target}_percentile`).attributes['reference_period'];
  const share = percentile >= 50 ? percentile : 100 - percentile;
  const text =
    percentile === 50
      ? 'as usual for the season'
      : `${percentile > 50 ? more : less} than ${share.toFixed(0)} % of days of this season`;
  const away = anomaly === undefined ? '' : `; ${signed(anomaly, maps)} from its mean`;
  const since = period ? ` (${String(period).replace('..', ' to ')})` : '';
  return `${text}${away}${since}`;
}

function signed(value: number, maps: Maps): string {
  const text = withUnits(Math.abs(value), maps.variable(maps.target));
  return `${value < 0 ? '−' : '+'}${text}`;
}

/** The flags that are set, each in the words of the maps. */
export function flagsInWords(maps: Maps, flag: number): string[] {
  const {attributes} = maps.variable(FLAG);
  const masks = (attributes['flag_masks'] as number[] | undefined) ?? [];
  const names = String(attributes['flag_meanings'] ?? '').split(' ');
  const told = new Map(
    String(attributes['comment'] ?? '')
      .split('; ')
      .map((part) => [part.slice(0, part.indexOf(':')), part.slice(part.indexOf(':') + 2)]),
  );
  const set = names.filter((_, i) => flag & (masks[i] ?? 0));
  return set.map((name) => `${name.replaceAll('_', ' ')}: ${told.get(name) ?? ''}`.replace(/: $/, ''));
}

export function distanceInWords(reading: Reading): string {
  if (reading.distance === undefined) return '';
  const text = reading.distance.toFixed(2);
  if (reading.distance <= 1) return `${text}: as like a training site as these are like each other`;
  return `${text}: ${reading.distance <= 2 ? 'less like the training sites' : 'unlike any training site'}`;
}

export function placeInWords({lat, lon}: Place): string {
  const [north, east] = [lat >= 0 ? 'N' : 'S', lon >= 0 ? 'E' : 'W'];
  return `${Math.abs(lat).toFixed(3)}° ${north}, ${Math.abs(lon).toFixed(3)}° ${east}`;
}
