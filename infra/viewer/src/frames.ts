/** Coloured tiles of a layer on a day; the last ones are kept. */
import {BoundedCache} from './bounded';
import {type Colour, colours, paint} from './colours';
import type {Cell} from './grid';
import type {Layer} from './layers';
import {FLAG, type Maps, NO_INPUTS} from './maps';

const IMAGE_BYTES = 64 * 2 ** 20;

export interface TileImage {
  /** Left, bottom, right and top in metres. */
  extent: [number, number, number, number];
  cells: HTMLCanvasElement;
  /** Opaque where a cell is flagged; undefined if none is. */
  marked: HTMLCanvasElement | undefined;
}

export class Frames {
  private readonly kept = new BoundedCache<Promise<TileImage>>(IMAGE_BYTES);
  private readonly scales = new Map<string, Colour[]>();

  constructor(private readonly maps: Maps) {}

  /** The tiles of a layer on a day between two cells. */
  frame(layer: Layer, day: number, from: Cell, to: Cell): Promise<TileImage[]> {
    const tiles = [...this.maps.tilesIn(layer.name, from, to)];
    return Promise.all(tiles.map((at) => this.image(layer, day, at)));
  }

  private image(layer: Layer, day: number, at: Cell): Promise<TileImage> {
    const key = `${layer.id} ${layer.daily ? day : ''} ${at.row},${at.col}`;
    const kept = this.kept.get(key);
    if (kept) return kept;
    const [height, width] = this.maps.tileShape(layer.name);
    const making = this.make(layer, day, at);
    this.kept.set(key, making, 8 * height * width);
    making.catch(() => this.kept.set(key, making, Infinity)); // dropped, so it is made again
    return making;
  }

  private async make(layer: Layer, day: number, at: Cell): Promise<TileImage> {
    const {grid} = this.maps;
    const flags = layer.daily && this.maps.has(FLAG) ? this.maps.tile(FLAG, day, at) : undefined;
    const [tile, flagged] = await Promise.all([this.maps.tile(layer.name, day, at), flags]);
    const {scale: factor, fill} = this.maps.variable(layer.name);
    const scale = {factor, fill, range: layer.range, colours: this.coloursOf(layer)};
    const painted = paint(tile, flagged, scale, NO_INPUTS);
    const [height, width] = this.maps.tileShape(layer.name);
    const first = grid.bounds({row: at.row * height, col: at.col * width});
    const [right, bottom] = [first[0] + tile.cols * grid.size, first[3] - tile.rows * grid.size];
    return {
      extent: [first[0], bottom, right, first[3]],
      cells: canvasOf(painted.rgba, tile.cols, tile.rows),
      marked: painted.anyMarked ? canvasOf(painted.marked, tile.cols, tile.rows) : undefined,
    };
  }

  private coloursOf(layer: Layer): Colour[] {
    const made = this.scales.get(layer.scale) ?? colours(layer.scale);
    this.scales.set(layer.scale, made);
    return made;
  }
}

function canvasOf(rgba: Uint8ClampedArray<ArrayBuffer>, width: number, height: number): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext('2d')!.putImageData(new ImageData(rgba, width, height), 0, 0);
  return canvas;
}
