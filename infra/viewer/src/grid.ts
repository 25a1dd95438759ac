/** The cells of the maps: EASE-Grid 2.0, EPSG:6933, in metres. */
import proj4 from 'proj4';

const EPSG_6933 = '+proj=cea +lat_ts=30 +lon_0=0 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs';
const projection = proj4(EPSG_6933);

export const FOOTPRINT_M = 36032.220840584; // the side of a cell of the 36 km grid
export const WORLD = [-17367530.4452, -7314540.8306, 17367530.4452, 7314540.8306];

export interface Cell {
  row: number;
  col: number;
}

export interface Place {
  lat: number;
  lon: number;
}

/** x and y in metres of a place in degrees. */
export function project(place: Place): [number, number] {
  return projection.forward([place.lon, place.lat]) as [number, number];
}

/** Degrees of x and y in metres. */
export function unproject(x: number, y: number): Place {
  const [lon, lat] = projection.inverse([x, y]) as [number, number];
  return {lat, lon};
}

export class Grid {
  constructor(
    readonly rows: number,
    readonly cols: number,
    readonly left: number,
    readonly top: number,
    readonly size: number,
  ) {}

  /** From the attributes `spatial:shape` and `spatial:transform` of the maps. */
  static of(attributes: Record<string, unknown>): Grid {
    const shape = attributes['spatial:shape'] as number[] | undefined;
    const transform = attributes['spatial:transform'] as number[] | undefined;
    if (attributes['proj:code'] !== 'EPSG:6933' || !shape || !transform) {
      throw new Error('the maps do not say that their cells are those of EASE-Grid 2.0, EPSG:6933');
    }
    return new Grid(shape[0]!, shape[1]!, transform[2]!, transform[5]!, transform[0]!);
  }

  get extent(): [number, number, number, number] {
    const right = this.left + this.cols * this.size;
    return [this.left, this.top - this.rows * this.size, right, this.top];
  }

  /** The cell at x and y in metres; undefined outside of the maps. */
  cellAt(x: number, y: number): Cell | undefined {
    const row = Math.floor((this.top - y) / this.size);
    const col = Math.floor((x - this.left) / this.size);
    const inside = row >= 0 && row < this.rows && col >= 0 && col < this.cols;
    return inside ? {row, col} : undefined;
  }

  cellOf(place: Place): Cell | undefined {
    return this.cellAt(...project(place));
  }

  /** Left, bottom, right and top of a cell in metres. */
  bounds({row, col}: Cell): [number, number, number, number] {
    const left = this.left + col * this.size;
    const top = this.top - row * this.size;
    return [left, top - this.size, left + this.size, top];
  }

  centre(cell: Cell): Place {
    const [left, bottom, right, top] = this.bounds(cell);
    return unproject((left + right) / 2, (bottom + top) / 2);
  }

  /** Row and column of the footprint that contains a cell. */
  footprint({row, col}: Cell): Cell {
    const cells = Math.round(FOOTPRINT_M / this.size);
    return {row: Math.floor(row / cells), col: Math.floor(col / cells)};
  }
}
