/** Colour scales: perceptually uniform, and told apart without seeing red or green. */

const ANCHORS = {
  // viridis of matplotlib, backwards: from dry (yellow) to wet (violet)
  moisture: 'fde725d5e21aaadc3281d34d5cc8633dbc7427ad811f9f8821908d26818e2c718e33628d3b518b423f85472c7a481769440154',
  // magma of matplotlib, backwards
  amount: 'fcfdbffde0a1fec287fea571fb8761f4695ce55064cf4070b5367a9b2e7f812581681c814f127b3410691c1044090720000004',
  // BrBG of ColorBrewer, brown for dry
  difference: '543005774508995d13b97b29cfa256e2c787f1dfb3f6edd7f4f5f5d7eeebb4e2db87d0c558b0a72d8f870c716901554b003c30',
  // OrRd of ColorBrewer, for scores of sites, to be seen on all others
  score: 'fff7ecfeefdafee8c8fddeb3fdd49efdc791fdba83fca36efc8c59f57850ef6447e24933d62f1ec4170fb200009700007f0000',
} as const;

export type ScaleName = keyof typeof ANCHORS;
export type Colour = [number, number, number];

export const STEPS = 256;
export const NO_DATA: Colour = [201, 204, 209];

/** The colours of a scale: STEPS of them, red, green and blue of each. */
export function colours(name: ScaleName): Colour[] {
  const anchors = ANCHORS[name].match(/.{6}/g)!.map(parse);
  return Array.from({length: STEPS}, (_, step) => {
    const place = (step / (STEPS - 1)) * (anchors.length - 1);
    const [low, high] = [anchors[Math.floor(place)]!, anchors[Math.ceil(place)]!];
    const share = place - Math.floor(place);
    return low.map((value, i) => Math.round(value + share * (high[i]! - value))) as Colour;
  });
}

function parse(hex: string): Colour {
  return [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as Colour;
}

/** The number of the colour of a value; values beyond the range have the colours of its ends. */
export function step(value: number, range: [number, number]): number {
  const share = (value - range[0]) / (range[1] - range[0]);
  return Math.max(0, Math.min(STEPS - 1, Math.round(share * (STEPS - 1))));
}

export function css([red, green, blue]: Colour): string {
  return `rgb(${red}, ${green}, ${blue})`;
}

/** A gradient of CSS with all colours of a scale. */
export function gradient(name: ScaleName): string {
  const all = colours(name);
  const some = Array.from({length: 17}, (_, i) => css(all[Math.round((i * (STEPS - 1)) / 16)]!));
  return `linear-gradient(to right, ${some.join(', ')})`;
}

/**
 * The colours of the cells of a tile as RGBA, and 255 where a cell is marked.
 *
 * `stored` are the numbers of the layer, `flags` those of the quality flag or undefined.
 */
export interface Painted {
  rgba: Uint8ClampedArray<ArrayBuffer>;
  marked: Uint8ClampedArray<ArrayBuffer>;
  anyMarked: boolean;
}

export interface Cells {
  data: ArrayLike<number>;
  offset: number;
  width: number;
  rows: number;
  cols: number;
}

export function paint(
  layer: Cells,
  flags: Cells | undefined,
  scale: {factor: number; fill: number | undefined; range: [number, number]; colours: Colour[]},
  ignoredFlags: number,
): Painted {
  const n = layer.rows * layer.cols;
  const pixels = new Uint32Array(n); // four bytes each, written at once
  const marks = new Uint32Array(n);
  const known = Uint32Array.from(scale.colours, packed);
  const grey = packed(NO_DATA);
  const {factor, fill, range} = scale;
  let anyMarked = false;
  for (let row = 0, i = 0; row < layer.rows; row++) {
    const at = layer.offset + row * layer.width;
    const flagsAt = flags ? flags.offset + row * flags.width : 0;
    for (let col = 0; col < layer.cols; col++, i++) {
      const stored = layer.data[at + col]!;
      if (stored === fill || stored !== stored) {
        pixels[i] = grey; // NaN differs from itself
        continue;
      }
      pixels[i] = known[step(stored * factor, range)]!;
      if (!flags || (flags.data[flagsAt + col]! & ~ignoredFlags) === 0) continue;
      marks[i] = OPAQUE;
      anyMarked = true;
    }
  }
  return {rgba: new Uint8ClampedArray(pixels.buffer), marked: new Uint8ClampedArray(marks.buffer), anyMarked};
}

const OPAQUE = packed([0, 0, 0]);

/** The bytes red, green, blue and 255 as one number, in the order of this machine. */
function packed([red, green, blue]: Colour): number {
  return new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0]!;
}
