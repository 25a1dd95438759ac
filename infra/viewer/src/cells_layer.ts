/** Draws tiles of cells on the map, and hatches the cells that are flagged. */
import Layer from 'ol/layer/Layer.js';
import type {FrameState} from 'ol/Map.js';
import {apply} from 'ol/transform.js';
import type {TileImage} from './frames';

const HATCH_PX = 7;

export class CellsLayer extends Layer {
  private readonly canvas = document.createElement('canvas');
  private readonly hatched = document.createElement('canvas');
  private tiles: TileImage[] = [];
  private marks = true;

  constructor() {
    super({});
    this.canvas.className = 'cells';
  }

  show(tiles: TileImage[]): void {
    this.tiles = tiles;
    this.changed();
  }

  showMarks(shown: boolean): void {
    this.marks = shown;
    this.changed();
  }

  override render(frame: FrameState): HTMLElement {
    const {canvas} = this;
    const ratio = frame.pixelRatio;
    const [width, height] = frame.size.map((n) => Math.round(n * ratio)) as [number, number];
    if (canvas.width !== width || canvas.height !== height) {
      [canvas.width, canvas.height] = [width, height];
    }
    const context = canvas.getContext('2d')!;
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = this.getOpacity();
    for (const tile of this.tiles) context.drawImage(tile.cells, ...pixels(frame, tile.extent));
    if (this.marks && this.tiles.some((tile) => tile.marked)) this.hatch(frame, context);
    context.globalAlpha = 1;
    return canvas;
  }

  /** Hatch in pixels of the screen, so that it looks the same at every scale. */
  private hatch(frame: FrameState, onto: CanvasRenderingContext2D): void {
    const {canvas: full, hatched} = this;
    [hatched.width, hatched.height] = [full.width, full.height];
    const context = hatched.getContext('2d')!;
    context.imageSmoothingEnabled = false;
    for (const {marked, extent} of this.tiles) {
      if (marked) context.drawImage(marked, ...pixels(frame, extent));
    }
    context.globalCompositeOperation = 'source-in';
    context.fillStyle = context.createPattern(hatching(frame.pixelRatio), 'repeat')!;
    context.fillRect(0, 0, hatched.width, hatched.height);
    onto.drawImage(hatched, 0, 0);
  }
}

/** x, y, width and height on the canvas, in whole pixels so that tiles leave no seams. */
function pixels(frame: FrameState, extent: number[]): [number, number, number, number] {
  const ratio = frame.pixelRatio;
  const corner = (x: number, y: number) =>
    apply(frame.coordinateToPixelTransform, [x, y]).map((n: number) => Math.round(n * ratio));
  const [left, top] = corner(extent[0]!, extent[3]!);
  const [right, bottom] = corner(extent[2]!, extent[1]!);
  return [left!, top!, right! - left!, bottom! - top!];
}

/** A square of diagonal lines, dark beside light, to be seen on every colour. */
function hatching(ratio: number): HTMLCanvasElement {
  const square = document.createElement('canvas');
  const size = Math.round(HATCH_PX * ratio);
  square.width = square.height = size;
  const context = square.getContext('2d')!;
  for (const [colour, shift] of [['rgba(0,0,0,0.75)', 0], ['rgba(255,255,255,0.75)', 1.2]] as const) {
    context.strokeStyle = colour;
    context.lineWidth = 1.2 * ratio;
    for (const from of [-size, 0, size]) {
      context.beginPath();
      context.moveTo(from + shift * ratio, size);
      context.lineTo(from + size + shift * ratio, 0);
      context.stroke();
    }
  }
  return square;
}
