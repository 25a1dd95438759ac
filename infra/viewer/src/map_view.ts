/** The map: cells, outlines, sites, the chosen cell and that under the cursor. */
import Feature from 'ol/Feature.js';
import OlMap from 'ol/Map.js';
import View from 'ol/View.js';
import {defaults as defaultControls} from 'ol/control/defaults.js';
import ScaleLine from 'ol/control/ScaleLine.js';
import LineString from 'ol/geom/LineString.js';
import Point from 'ol/geom/Point.js';
import {fromExtent} from 'ol/geom/Polygon.js';
import KeyboardZoom from 'ol/interaction/KeyboardZoom.js';
import {defaults as defaultInteractions} from 'ol/interaction/defaults.js';
import VectorLayer from 'ol/layer/Vector.js';
import Projection from 'ol/proj/Projection.js';
import VectorSource from 'ol/source/Vector.js';
import CircleStyle from 'ol/style/Circle.js';
import Fill from 'ol/style/Fill.js';
import Stroke from 'ol/style/Stroke.js';
import Style from 'ol/style/Style.js';
import {CellsLayer} from './cells_layer';
import {type Cell, type Grid, type Place, project, WORLD} from './grid';
import {type Outlines, unpacked} from './outline_points';
import outlinesUrl from './outlines.json?url';

const PADDING_PX = 24;
const SITE_RADIUS_PX = 6;
const HIT_PX = 6;

export interface Dot {
  place: Place;
  colour: string;
  label: string;
}

export interface MapEvents {
  hover(cell: Cell | undefined, place: [number, number] | undefined): void;
  choose(cell: Cell): void;
  chooseSite(index: number): void;
  moved(): void;
}

export class MapView {
  readonly cells = new CellsLayer();
  private readonly map: OlMap;
  private readonly lines = new VectorSource();
  private readonly dots = new VectorSource();
  private readonly chosen = new VectorSource();
  private readonly hovered = new VectorSource();
  private readonly sitesLayer: VectorLayer;

  constructor(
    private readonly target: HTMLElement,
    private readonly grid: Grid,
    private readonly events: MapEvents,
  ) {
    const projection = new Projection({code: 'EPSG:6933', units: 'm', extent: WORLD});
    this.sitesLayer = new VectorLayer({source: this.dots});
    this.map = new OlMap({
      target,
      controls: defaultControls({attribution: false, rotate: false}).extend([new ScaleLine()]),
      interactions: defaultInteractions({
        altShiftDragRotate: false,
        pinchRotate: false,
        keyboard: false, // the arrow keys move in time
      }).extend([new KeyboardZoom()]),
      layers: [
        this.cells,
        new VectorLayer({source: this.lines, style: lineStyle('rgba(30, 30, 30, 0.65)', 1)}),
        this.sitesLayer,
        new VectorLayer({source: this.hovered, style: lineStyle('#ffffff', 2)}),
        new VectorLayer({source: this.chosen, style: [lineStyle('#ffffff', 5), lineStyle('#d4006a', 3)]}),
      ],
      view: new View({
        projection,
        maxResolution: 40000,
        minResolution: grid.size / 128,
        showFullExtent: true,
      }),
    });
    this.fit();
    this.listen();
    void this.drawOutlines();
  }

  /** Show all of the maps. */
  fit(): void {
    this.map.getView().fit(this.grid.extent, {padding: Array(4).fill(PADDING_PX)});
  }

  /** The first and last cell on the screen; undefined if the maps are not on it. */
  visibleCells(): [Cell, Cell] | undefined {
    const {grid} = this;
    const [left, bottom, right, top] = this.map.getView().calculateExtent() as [number, number, number, number];
    const clipped = (n: number, last: number) => Math.max(0, Math.min(last, n));
    const rows = [(grid.top - top) / grid.size, (grid.top - bottom) / grid.size];
    const cols = [(left - grid.left) / grid.size, (right - grid.left) / grid.size];
    if (rows[1]! < 0 || rows[0]! > grid.rows || cols[1]! < 0 || cols[0]! > grid.cols) return undefined;
    const [first, last] = [0, 1].map((i) => ({
      row: clipped(Math.floor(rows[i]!), grid.rows - 1),
      col: clipped(Math.floor(cols[i]!), grid.cols - 1),
    }));
    return [first!, last!];
  }

  choose(cell: Cell | undefined): void {
    this.outline(this.chosen, cell);
  }

  /** Move the map if a cell is not on the screen. */
  bringIntoView(cell: Cell): void {
    const [left, bottom, right, top] = this.grid.bounds(cell);
    const seen = this.map.getView().calculateExtent() as number[];
    if (left < seen[0]! || bottom < seen[1]! || right > seen[2]! || top > seen[3]!) {
      this.map.getView().setCenter([(left + right) / 2, (bottom + top) / 2]);
    }
  }

  setDots(dots: Dot[]): void {
    const features = dots.map((dot, index) => {
      const feature = new Feature({geometry: new Point(project(dot.place)), index});
      feature.setStyle(dotStyle(dot.colour));
      return feature;
    });
    this.dots.clear();
    this.dots.addFeatures(features);
  }

  showDots(shown: boolean): void {
    this.sitesLayer.setVisible(shown);
  }

  setOpacity(opacity: number): void {
    this.cells.setOpacity(opacity);
  }


  /** The position of the centre of a cell on the page, for tests. */
  pixelOf(cell: Cell): [number, number] {
    const [left, bottom, right, top] = this.grid.bounds(cell);
    const [x, y] = this.map.getPixelFromCoordinate([(left + right) / 2, (bottom + top) / 2]) as [number, number];
    const box = this.target.getBoundingClientRect();
    return [box.left + x, box.top + y];
  }

  private listen(): void {
    const {map, grid, events} = this;
    map.on('pointermove', (event) => {
      if (event.dragging) return;
      const [x, y] = event.coordinate as [number, number];
      const cell = grid.cellAt(x, y);
      this.outline(this.hovered, cell);
      this.target.style.cursor = this.siteAt(event.pixel as number[]) === undefined ? '' : 'pointer';
      events.hover(cell, [x, y]);
    });
    this.target.addEventListener('pointerleave', () => {
      this.hovered.clear();
      events.hover(undefined, undefined);
    });
    map.on('click', (event) => {
      const site = this.siteAt(event.pixel as number[]);
      const cell = grid.cellAt(...(event.coordinate as [number, number]));
      if (site !== undefined) events.chooseSite(site);
      else if (cell) events.choose(cell);
    });
    map.on('moveend', () => events.moved());
  }

  private siteAt(pixel: number[]): number | undefined {
    return this.map.forEachFeatureAtPixel(pixel, (feature) => feature.get('index') as number, {
      layerFilter: (layer) => layer === this.sitesLayer,
      hitTolerance: HIT_PX,
    });
  }

  private outline(source: VectorSource, cell: Cell | undefined): void {
    source.clear();
    if (cell) source.addFeature(new Feature(fromExtent(this.grid.bounds(cell))));
  }

  /** The outlines are read after the page, as the map is of use without them. */
  private async drawOutlines(): Promise<void> {
    const answer = await fetch(outlinesUrl);
    if (!answer.ok) return;
    const {step, countries, states} = (await answer.json()) as Outlines;
    const features = [...countries, ...states].map((line) => new Feature(new LineString(unpacked(line, step))));
    this.lines.addFeatures(features);
  }
}

function lineStyle(color: string, width: number): Style {
  return new Style({stroke: new Stroke({color, width})});
}

function dotStyle(color: string): Style {
  const stroke = new Stroke({color: '#1c2330', width: 1.5});
  const image = new CircleStyle({radius: SITE_RADIUS_PX, fill: new Fill({color}), stroke});
  return new Style({image});
}
