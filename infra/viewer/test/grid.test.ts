import {expect, test} from 'vitest';
import {FOOTPRINT_M, Grid, project, unproject} from '../src/grid';
import {unpacked} from '../src/outline_points';

// longitude, latitude, x and y of EPSG:6933, by PROJ
const PLACES = [
  [-101.35, 39.12, -9778884.5034, 4620061.8605],
  [0, 0, 0, 0],
  [179.9, -60.5, 17357881.8171, -6383393.7431],
  [-125, 50, -12060785.0314, 5614050.1031],
  [15.3, 83.2, 1476240.0878, 7290121.6749],
] as const;

test.each(PLACES)('%f east, %f north is projected as by PROJ', (lon, lat, x, y) => {
  const found = project({lat, lon});
  expect(found[0]).toBeCloseTo(x, 1);
  expect(found[1]).toBeCloseTo(y, 1);
  const back = unproject(x, y);
  expect(back.lon).toBeCloseTo(lon, 6);
  expect(back.lat).toBeCloseTo(lat, 6);
});

const SIZE = FOOTPRINT_M / 4;
const grid = Grid.of({
  'proj:code': 'EPSG:6933',
  'spatial:shape': [12, 20],
  'spatial:transform': [SIZE, 0, -1000, 0, -SIZE, 5000],
});

test('every cell is found at its centre and at its corners', () => {
  for (let row = 0; row < 12; row++) {
    for (let col = 0; col < 20; col++) {
      const cell = {row, col};
      const [left, bottom, right, top] = grid.bounds(cell);
      expect(grid.cellOf(grid.centre(cell))).toEqual(cell);
      expect(grid.cellAt(left + 0.01, top - 0.01)).toEqual(cell);
      expect(grid.cellAt(right - 0.01, bottom + 0.01)).toEqual(cell);
    }
  }
});

test('outside there is no cell, and the footprint of a cell is 4 cells wide', () => {
  const [left, bottom, right, top] = grid.extent;
  for (const [x, y] of [[left - 1, top - 1], [right, top - 1], [left, top + 1], [left, bottom - 1]]) {
    expect(grid.cellAt(x!, y!)).toBeUndefined();
  }
  expect(grid.footprint({row: 7, col: 19})).toEqual({row: 1, col: 4});
});

test('maps in another projection are refused', () => {
  expect(() => Grid.of({'proj:code': 'EPSG:4326'})).toThrow(/EPSG:6933/);
});

test('lines are unpacked from differences', () => {
  const line = unpacked([100, 200, -50, 10], 0.01);
  expect(line[1]).toEqual(project({lon: 0.5, lat: 2.1}));
});
