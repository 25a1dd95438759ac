/** The maps of an arm: what they contain, chunks of a day, and series of a cell. */
import * as zarr from 'zarrita';
import {BoundedCache} from './bounded';
import {CheckedCrc32c} from './crc32c';
import {dayNumber} from './days';
import {type Cell, Grid} from './grid';
import {HttpStore} from './store';

zarr.registry.set('crc32c', async () => CheckedCrc32c as never);

const DECODED_BYTES = 64 * 2 ** 20;
export const FLAG = 'quality_flag';
export const NO_INPUTS = 1; // of the flag

type Numbers = Int16Array | Uint8Array | Float32Array;
type Attributes = Record<string, unknown>;
type ZarrArray = zarr.Array<zarr.DataType, zarr.Readable>;

/** A chunk of a day as it is stored: cell (i, j) of the tile is data[offset + i * width + j]. */
export interface Tile {
  data: Numbers;
  offset: number;
  width: number;
  rows: number;
  cols: number;
}

export interface Variable {
  name: string;
  attributes: Attributes;
  /** A stored number times this is the value in units. */
  scale: number;
  fill: number | undefined;
  units: string;
}

export class Maps {
  private readonly decoded = new BoundedCache<Promise<zarr.Chunk<zarr.DataType>>>(DECODED_BYTES);

  private constructor(
    readonly attributes: Attributes,
    readonly grid: Grid,
    /** The mapped variable. */
    readonly target: string,
    /** First and last day, since 1970-01-01. */
    readonly days: [number, number],
    /** The day of the first map along the axis: maps of earlier versions begin before their period. */
    private readonly axisStart: number,
    readonly variables: Map<string, Variable>,
    private readonly root: Map<string, ZarrArray>,
    private readonly series: Map<string, ZarrArray>,
  ) {}

  static async open(release: HttpStore, arm: string): Promise<Maps> {
    const store = release.below(`maps/${arm}.zarr/`);
    const described = await store.json<Described>('zarr.json');
    if (!described) throw new Error(`${store.root}zarr.json: there are no maps here`);
    const members = described.consolidated_metadata?.metadata;
    if (!members) throw new Error(`${store.root}zarr.json: its metadata are not consolidated`);
    const attributes = described.attributes ?? {};
    const [root, series] = [arraysOf(store, members, ''), arraysOf(store, members, 'series/')];
    const target = [...root.keys()].find((name) => root.has(`${name}_std`));
    const days = (attributes['period'] as string[] | undefined)?.map(dayNumber);
    if (!target || days?.length !== 2 || days.includes(undefined)) {
      throw new Error(`${store.root}zarr.json: these are no maps of soilweave`);
    }
    const variables = new Map([...root].map(([name, array]) => [name, variableOf(name, array)]));
    const period = days as [number, number];
    const start = await axisStart(root, target, period);
    return new Maps(attributes, Grid.of(attributes), target, period, start, variables, root, series);
  }

  has(name: string): boolean {
    return this.root.has(name);
  }

  variable(name: string): Variable {
    return this.variables.get(name)!;
  }

  /** Rows and columns of the chunks of a day. */
  tileShape(name: string): [number, number] {
    return this.array(name).chunks.slice(-2) as [number, number];
  }

  /** The tiles that lie in some rows and columns, the last ones included. */
  *tilesIn(name: string, from: Cell, to: Cell): Generator<Cell> {
    const [height, width] = this.tileShape(name);
    for (let row = Math.floor(from.row / height); row <= Math.floor(to.row / height); row++) {
      for (let col = Math.floor(from.col / width); col <= Math.floor(to.col / width); col++) {
        yield {row, col};
      }
    }
  }

  /** A chunk of a variable on a day; `day` does not matter if it has no days. */
  async tile(name: string, day: number, at: Cell): Promise<Tile> {
    const array = this.array(name);
    const [height, width] = this.tileShape(name);
    const time = array.shape.length === 3 ? day - this.axisStart : undefined;
    const length = array.chunks[0]!;
    const key = time === undefined ? [] : [Math.floor(time / length)];
    const chunk = await this.chunk(array, [...key, at.row, at.col]);
    return {
      data: chunk.data as Numbers,
      offset: time === undefined ? 0 : (time % length) * height * width,
      width,
      rows: Math.min(height, this.grid.rows - at.row * height),
      cols: Math.min(width, this.grid.cols - at.col * width),
    };
  }

  /** The stored number of a cell on a day. */
  async stored(name: string, day: number, cell: Cell): Promise<number> {
    const [height, width] = this.tileShape(name);
    const at = {row: Math.floor(cell.row / height), col: Math.floor(cell.col / width)};
    const tile = await this.tile(name, day, at);
    return tile.data[tile.offset + (cell.row % height) * tile.width + (cell.col % width)]!;
  }

  /** The value of a cell on a day in units; undefined where it is missing, or the variable is. */
  async value(name: string, day: number, cell: Cell): Promise<number | undefined> {
    if (!this.has(name)) return undefined;
    return decode(this.variable(name), await this.stored(name, day, cell));
  }

  /** The stored numbers of a cell on all days. */
  async seriesOf(name: string, cell: Cell): Promise<Numbers> {
    const array = this.series.get(name);
    if (!array) throw new Error(`the maps have no series of ${name}`);
    const [length, height, width] = array.chunks as [number, number, number];
    const [skipped, n] = [this.days[0] - this.axisStart, this.days[1] - this.days[0] + 1];
    const within = (cell.row % height) * width + (cell.col % width);
    const at = [Math.floor(cell.row / height), Math.floor(cell.col / width)];
    const starts = Array.from({length: Math.ceil((skipped + n) / length)}, (_, i) => i);
    const parts = await Promise.all(starts.map((i) => this.chunk(array, [i, ...at])));
    const values = new (parts[0]!.data.constructor as Int16ArrayConstructor)(n);
    for (let day = 0; day < n; day++) {
      const along = skipped + day;
      const data = parts[Math.floor(along / length)]!.data as Numbers;
      values[day] = data[(along % length) * height * width + within]!;
    }
    return values;
  }

  private array(name: string): ZarrArray {
    const array = this.root.get(name);
    if (!array) throw new Error(`the maps have no ${name}`);
    return array;
  }

  private chunk(array: ZarrArray, key: number[]): Promise<zarr.Chunk<zarr.DataType>> {
    const name = `${array.path} ${key.join(',')}`;
    const kept = this.decoded.get(name);
    if (kept) return kept;
    const reading = array.getChunk(key);
    const size = array.chunks.reduce((a, b) => a * b, bytesOf(array.dtype));
    this.decoded.set(name, reading, size);
    reading.catch(() => this.decoded.set(name, reading, Infinity)); // dropped, so it is read again
    return reading;
  }
}

/** A stored number in units; undefined if it is missing. */
export function decode(variable: Variable, stored: number): number | undefined {
  if (stored === variable.fill || Number.isNaN(stored)) return undefined;
  return stored * variable.scale;
}

interface Described {
  attributes?: Attributes;
  consolidated_metadata?: {metadata: Record<string, {node_type: string}>};
}

/** The arrays directly in a group, from the consolidated metadata: no request for each. */
function arraysOf(
  store: HttpStore,
  members: Record<string, {node_type: string}>,
  group: string,
): Map<string, ZarrArray> {
  const found = new Map<string, ZarrArray>();
  for (const [path, described] of Object.entries(members)) {
    const name = path.slice(group.length);
    if (described.node_type !== 'array' || !path.startsWith(group) || name.includes('/')) continue;
    found.set(name, new zarr.Array(store as zarr.Readable, `/${path}`, described as never));
  }
  return found;
}

async function axisStart(
  root: Map<string, ZarrArray>,
  target: string,
  period: [number, number],
): Promise<number> {
  const time = root.get('time');
  if (root.get(target)!.shape[0] === period[1] - period[0] + 1 || !time) return period[0];
  return Number((await time.getChunk([0])).data[0 as never]);
}

function variableOf(name: string, array: ZarrArray): Variable {
  const attributes = array.attrs as Attributes;
  const fill = attributes['_FillValue'];
  return {
    name,
    attributes,
    scale: Number(attributes['scale_factor'] ?? 1),
    fill: typeof fill === 'number' ? fill : undefined,
    units: String(attributes['units'] ?? '1'),
  };
}

function bytesOf(dtype: string): number {
  return Number(/\d+$/.exec(dtype)?.[0] ?? 8) / 8;
}
