import {expect, test} from 'vitest';
import {type Colour, colours, NO_DATA, paint, step, STEPS} from '../src/colours';

/** CIE L*a*b* of a colour of sRGB. */
function lab(colour: Colour): Colour {
  const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const x = (0.4124 * r! + 0.3576 * g! + 0.1805 * b!) / 0.9505;
  const y = 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  const z = (0.0193 * r! + 0.1192 * g! + 0.9505 * b!) / 1.089;
  const [fx, fy, fz] = [x, y, z].map((t) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116));
  return [116 * fy! - 16, 500 * (fx! - fy!), 200 * (fy! - fz!)];
}

/** How deuteranopes see a colour (Machado et al. 2009, severity 1). */
function withoutGreen([r, g, b]: Colour): Colour {
  return [
    0.367322 * r + 0.860646 * g - 0.227968 * b,
    0.280085 * r + 0.672501 * g + 0.047413 * b,
    -0.01182 * r + 0.04294 * g + 0.968881 * b,
  ].map((v) => Math.max(0, Math.min(255, v))) as Colour;
}

const apart = (one: Colour, two: Colour) => Math.hypot(...lab(one).map((v, i) => v - lab(two)[i]!));

test.each(['moisture', 'amount'] as const)('%s grows darker all the way, also without seeing green', (name) => {
  for (const seen of [(c: Colour) => c, withoutGreen]) {
    const light = colours(name).map((colour) => lab(seen(colour))[0]);
    for (let i = 8; i < STEPS; i += 8) expect(light[i]).toBeLessThan(light[i - 8]!);
  }
});

// The scales were made uniform in CAM02-UCS, of which lightness is nearly that of L*a*b*.
test.each([['moisture', 1.35], ['amount', 3]] as const)('equal steps of %s are about as much darker', (name, most) => {
  const light = colours(name).map((colour) => lab(colour)[0]);
  const steps = Array.from({length: 15}, (_, i) => light[i * 17]! - light[(i + 1) * 17]!);
  expect(Math.max(...steps) / Math.min(...steps)).toBeLessThan(most);
});

test('no data looks like no value', () => {
  for (const name of ['moisture', 'difference', 'amount'] as const) {
    for (const colour of colours(name)) expect(apart(colour, NO_DATA)).toBeGreaterThan(8);
  }
});

test('values have the colour of their place in the range', () => {
  expect([-1, 0, 0.25, 0.5, 9].map((value) => step(value, [0, 0.5]))).toEqual([0, 0, 128, 255, 255]);
});

test('cells are coloured, missing ones grey, and flagged ones marked', () => {
  const all = colours('moisture');
  const scale = {factor: 1e-4, fill: -32768, range: [0, 0.5] as [number, number], colours: all};
  const layer = {data: [9, 9, 9, 0, 5000, -32768], offset: 3, width: 3, rows: 1, cols: 3};
  const flags = {data: [9, 9, 9, 0, 5, 1], offset: 3, width: 3, rows: 1, cols: 3};
  const {rgba, marked, anyMarked} = paint(layer, flags, scale, 1);
  expect([...rgba]).toEqual([...all[0]!, 255, ...all[255]!, 255, ...NO_DATA, 255]);
  expect([marked[3], marked[7], marked[11], anyMarked]).toEqual([0, 255, 0, true]);
});
