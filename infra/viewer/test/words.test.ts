import {expect, test} from 'vitest';
import {formatAddress, parseAddress} from '../src/address';
import {BoundedCache} from '../src/bounded';
import {addMonths, dayNumber, dayText} from '../src/days';
import {inWords, unitsInWords} from '../src/layers';
import type {Maps} from '../src/maps';
import {armsOf} from '../src/release';
import {asPython} from '../src/series';
import {onDays} from '../src/sites';
import {flagsInWords, interval, intervalInWords, percentileInWords, valueInWords} from '../src/words';

const units = 'm3 m-3';
const variables: Record<string, object> = {
  soil_moisture: {scale: 1e-4, fill: -32768, units, attributes: {valid_range: [50, 9000]}},
  soil_moisture_std: {scale: 1e-4, fill: -32768, units, attributes: {interval_factor_90: 1.6234}},
  soil_moisture_percentile: {scale: 0.1, units: '%', attributes: {reference_period: '2016-01-01..2018-12-31'}},
  quality_flag: {
    scale: 1,
    attributes: {
      flag_masks: [1, 2, 4],
      flag_meanings: 'no_inputs input_missing frozen',
      comment: 'no_inputs: none; input_missing: its mean stood in; frozen: cold, not judged',
    },
  },
};
const maps = {target: 'soil_moisture', variable: (name: string) => variables[name]} as unknown as Maps;
const reading = {value: 0.2, std: 0.05, percentile: 88, anomaly: -0.01, distance: 1.2, flag: 0};

test('the interval is cut at the limits of the variable', () => {
  expect(interval(maps, 0.2, 0.05)[0]).toBeCloseTo(0.11883, 6);
  expect(interval(maps, 0.01, 0.05)[0]).toBeCloseTo(0.005, 6);
});

test('value, interval and percentile are told in words', () => {
  expect(valueInWords(maps, reading)).toBe('0.2000 m³ m⁻³ (20.0 %)');
  expect(intervalInWords(maps, 'multiscale', reading)).toBe(
    'between 12 and 28 % in 9 of 10 cases, for a probe at a typical place in this cell',
  );
  expect(intervalInWords(maps, 'satellite', reading)).toMatch(/as the satellite would see it/);
  expect(percentileInWords(maps, reading)).toBe(
    'wetter than 88 % of days of this season; −0.0100 m³ m⁻³ from its mean (2016-01-01 to 2018-12-31)',
  );
  const missing = {...reading, value: undefined, flag: 1};
  expect(valueInWords(maps, missing)).toMatch(/no inputs/);
  expect(intervalInWords(maps, 'multiscale', missing)).toBe('');
});

test('flags are told as the maps tell them', () => {
  expect(flagsInWords(maps, 6)).toEqual(['input missing: its mean stood in', 'frozen: cold, not judged']);
  expect(flagsInWords(maps, 0)).toEqual([]);
});

test('a link holds all that is on the screen', () => {
  const all = {date: 17000, place: {lat: 39.1234, lon: -101.5}, layer: 'anomaly', arm: 'insitu'};
  expect(formatAddress(all)).toBe('?date=2016-07-18&lat=39.1234&lon=-101.5000&layer=anomaly&arm=insitu');
  expect(parseAddress(formatAddress(all))).toEqual(all);
  expect(parseAddress('?date=2016-02-30&lat=95&lon=1&layer=')).toEqual({});
});

test('days and months are counted by the calendar', () => {
  expect(dayText(dayNumber('2016-02-29')!)).toBe('2016-02-29');
  expect(dayText(addMonths(dayNumber('2016-03-31')!, -1))).toBe('2016-02-29');
  expect(dayText(addMonths(dayNumber('2016-12-31')!, 2))).toBe('2017-02-28');
});

test('units are written as people write them', () => {
  expect(unitsInWords('kg m-2 day-1')).toBe('kg m⁻² day⁻¹');
  expect(inWords(0.123, {name: 'snow', scale: 1e-3, fill: undefined, units: 'm', attributes: {}})).toBe('0.123 m');
});

test('values of the test period are put on the days of the maps', () => {
  expect(onDays({first: 12, values: [1, 2]}, [11, 12, 13, 14])).toEqual([null, 1, 2, null]);
  expect(onDays(undefined, [1])).toEqual([null]);
});

test('the arms are those of the items, multiscale first', () => {
  const links = [{rel: 'item', href: './items/insitu.json'}, {rel: 'root', href: './x.json'}];
  expect(armsOf({links: [...links, {rel: 'item', href: './items/multiscale.json'}]})).toEqual(['multiscale', 'insitu']);
});

test('the lines of Python open the series at the place', () => {
  const lines = asPython('s3://b/demo/releases/x', 'insitu', 'soil_moisture', {lat: 1, lon: -2});
  expect(lines).toContain('xr.open_zarr("s3://b/demo/releases/x/maps/insitu.zarr", group="series")');
  expect(lines).toContain('sel(lat=1.0000, lon=-2.0000, method="nearest")');
});

test('a cache stays below its size, and drops what was used longest ago', () => {
  const cache = new BoundedCache<string>(10);
  cache.set('a', 'A', 4);
  cache.set('b', 'B', 4);
  cache.get('a');
  cache.set('c', 'C', 4);
  cache.set('d', 'D', 11);
  expect(['a', 'b', 'c', 'd'].map((key) => cache.get(key))).toEqual(['A', undefined, 'C', undefined]);
  expect(cache.bytes).toBe(8);
});
