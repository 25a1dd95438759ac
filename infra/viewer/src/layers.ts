/** The layers that can be shown, their colours and ranges, and numbers as text. */
import type {ScaleName} from './colours';
import {decode, type Maps, type Variable} from './maps';

export interface Layer {
  /** Its name in the address of the page. */
  id: string;
  title: string;
  /** The array of the maps. */
  name: string;
  scale: ScaleName;
  range: [number, number];
  /** Whether it has a map for each day. */
  daily: boolean;
  /** What the two ends of the scale mean. */
  ends: [string, string];
}

export function isVolumetric(variable: Variable): boolean {
  return variable.units.replaceAll(' ', '') === 'm3m-3';
}

/** The layers that the maps have, the mapped variable first. */
export function layersOf(maps: Maps): Layer[] {
  const {target} = maps;
  const [low, high] = rangeOf(maps.variable(target));
  const spread = (high - low) * 0.3;
  const about = String(maps.variable(target).attributes['long_name'] ?? target);
  const all: Layer[] = [
    {id: 'value', title: capital(about.replace(/^volumetric /, '')), name: target, scale: 'moisture',
      range: [low, high], daily: true, ends: ['dry', 'wet']},
    {id: 'uncertainty', title: 'Uncertainty (standard deviation)', name: `${target}_std`, scale: 'amount',
      range: [0, spread], daily: true, ends: ['sure', 'unsure']},
    {id: 'percentile', title: 'Percentile for the season', name: `${target}_percentile`, scale: 'difference',
      range: [0, 100], daily: true, ends: ['drier than usual', 'wetter']},
    {id: 'anomaly', title: 'Anomaly from the season', name: `${target}_anomaly`, scale: 'difference',
      range: [-spread, spread], daily: true, ends: ['drier than usual', 'wetter']},
    {id: 'distance', title: 'Distance to training sites', name: 'attribute_distance', scale: 'amount',
      range: [0, 3], daily: false, ends: ['alike', 'unlike any site']},
  ]; // prettier-ignore
  return all.filter((layer) => maps.has(layer.name)).map((layer) => neutral(layer, maps));
}

/** Other variables than soil moisture are not dry or wet. */
function neutral(layer: Layer, maps: Maps): Layer {
  if (isVolumetric(maps.variable(maps.target)) || layer.id === 'distance') return layer;
  const ends: Record<string, [string, string]> = {
    value: ['little', 'much'],
    percentile: ['less than usual', 'more'],
    anomaly: ['less than usual', 'more'],
  };
  return {...layer, ends: ends[layer.id] ?? layer.ends};
}

/**
 * Set the ranges of value, uncertainty and anomaly by one map, of other variables than moisture,
 * whose limits say little about what occurs.
 */
export async function fitRanges(maps: Maps, layers: Layer[], day: number): Promise<void> {
  if (isVolumetric(maps.variable(maps.target))) return;
  const of = (id: string) => layers.find((layer) => layer.id === id);
  const [value, uncertainty, anomaly] = [of('value'), of('uncertainty'), of('anomaly')];
  const [low, high] = await usual(maps, maps.target, day);
  if (!(high > low)) return;
  if (value) value.range = [Math.min(0, low), high];
  if (uncertainty) uncertainty.range = [0, (await usual(maps, uncertainty.name, day))[1]];
  if (anomaly) anomaly.range = [(low - high) / 2, (high - low) / 2];
}

/** What 1 % and 99 % of the values of a tile in the middle of a map are smaller than. */
async function usual(maps: Maps, name: string, day: number): Promise<[number, number]> {
  const [height, width] = maps.tileShape(name);
  const {rows, cols} = maps.grid;
  const at = {row: Math.floor(rows / 2 / height), col: Math.floor(cols / 2 / width)};
  const {data} = await maps.tile(name, day, at);
  const variable = maps.variable(name);
  const values = Array.from(data, (stored: number) => decode(variable, stored)).filter((v) => v !== undefined);
  values.sort((a, b) => a - b);
  return [0.01, 0.99].map((share) => values[Math.floor(share * values.length)] ?? 0) as [number, number];
}

/** The range of the colours: the same for all days, so that days can be compared. */
function rangeOf(variable: Variable): [number, number] {
  if (isVolumetric(variable)) return [0, 0.5];
  const valid = variable.attributes['valid_range'] as [number, number] | undefined;
  return valid ? [valid[0] * variable.scale, valid[1] * variable.scale] : [0, 1];
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The number of decimals that show a value to the step in which it is stored. */
export function decimals(variable: Variable): number {
  return variable.scale === 1 ? 2 : Math.max(0, Math.ceil(-Math.log10(variable.scale) - 1e-9));
}

export function unitsInWords(units: string): string {
  if (units === '1') return '';
  return units.replace(/([a-z])(-?\d+)/gi, (_, unit: string, power: string) => `${unit}${raised(power)}`);
}

function raised(power: string): string {
  return [...power].map((sign) => (sign === '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(sign)])).join('');
}

/** A value with its units, such as 0.2315 m³ m⁻³. */
export function withUnits(value: number, variable: Variable): string {
  return `${value.toFixed(decimals(variable))} ${unitsInWords(variable.units)}`.trim();
}

/** A value with its units, and of moisture also in percent: 0.2315 m³ m⁻³ (23.2 %). */
export function inWords(value: number, variable: Variable): string {
  const percent = isVolumetric(variable) ? ` (${(100 * value).toFixed(1)} %)` : '';
  return withUnits(value, variable) + percent;
}
