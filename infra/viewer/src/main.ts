/** The page: opens the release that its address names, and keeps map, time and cell together. */
import 'ol/ol.css';
import 'uplot/dist/uPlot.min.css';
import './style.css';
import {formatAddress, parseAddress, parsePlace} from './address';
import {CellPanel} from './cell_panel';
import {dayText} from './days';
import {Frames} from './frames';
import type {Cell} from './grid';
import {drawLegend} from './legend';
import {fitRanges, type Layer, layersOf} from './layers';
import {Maps} from './maps';
import {MapView} from './map_view';
import {complain, element, fillSelect, Latest, tell} from './page';
import {openRelease, type Release} from './release';
import {Observations, type Site} from './sites';
import {dotsOf} from './site_dots';
import {TimeBar} from './time_bar';

const AHEAD = 2; // days that are read before they are asked for

class App {
  private layers: Layer[] = [];
  private layer!: Layer;
  private frames!: Frames;
  private view!: MapView;
  private time!: TimeBar;
  private panel!: CellPanel;
  private day: number;
  private sites: Site[] = [];
  private readonly shown = new Latest<number>((day) => this.showDay(day).catch(complain));

  constructor(
    private readonly release: Release,
    private arm: string,
    private maps: Maps,
    private readonly address = parseAddress(location.search),
  ) {
    const [first, last] = maps.days;
    this.day = Math.max(first, Math.min(last, address.date ?? last));
    this.useMaps(maps);
  }

  async start(): Promise<void> {
    this.describe(); // first, as it takes room from the map
    await this.fitRanges();
    this.view = new MapView(element('map'), this.maps.grid, {
      hover: (cell) => this.panel.hover(cell),
      choose: (cell) => void this.choose(cell),
      chooseSite: (index) => void this.chooseSite(index),
      moved: () => void this.shown.ask(this.day),
    });
    this.time = new TimeBar(this.maps.days, this.day, (day) => this.shown.ask(day));
    const observations = new Observations(this.release.store);
    this.panel = new CellPanel(this.release, observations, (day) => void this.time.goTo(day));
    this.panel.use(this.maps, this.arm, this.layer);
    this.connect();
    await this.shown.ask(this.day);
    performance.mark('first-map');
    await this.openPlace();
    this.sites = this.release.files['sites'] ? await observations.sites() : [];
    this.panel.setSites(this.sites);
    this.drawSites();
  }

  /** The place of the address, if it is in the maps. */
  private async openPlace(): Promise<void> {
    const {place} = this.address;
    if (!place) return;
    const cell = this.maps.grid.cellOf(place);
    if (cell) await this.choose(cell);
    else complain(`latitude ${place.lat}, longitude ${place.lon} is outside of the maps`);
  }

  private useMaps(maps: Maps): void {
    this.maps = maps;
    this.frames = new Frames(maps);
    this.layers = layersOf(maps);
    const wanted = this.layer?.id ?? this.address.layer;
    this.layer = this.layers.find((layer) => layer.id === wanted) ?? this.layers[0]!;
    fillSelect(element('layer'), this.layers.map(({id, title}) => [id, title]), this.layer.id);
    drawLegend(maps, this.layer);
  }

  /** Choose the colours of a variable without a range of its own by the map that is shown first. */
  private async fitRanges(): Promise<void> {
    await fitRanges(this.maps, this.layers, this.day);
    drawLegend(this.maps, this.layer);
  }

  private async showDay(day: number): Promise<void> {
    const step = Math.sign(day - this.day) || 1;
    this.day = day;
    const visible = this.view.visibleCells();
    if (visible) {
      const {layer} = this;
      this.view.cells.show(await this.frames.frame(layer, day, ...visible));
      const map = element('map');
      [map.dataset['day'], map.dataset['layer'], map.dataset['arm']] = [dayText(day), layer.id, this.arm];
      this.readAhead(day, step, visible);
    }
    void this.panel.showDay(day);
    this.keepAddress();
  }

  private readAhead(day: number, step: number, visible: [Cell, Cell]): void {
    for (let n = 1; n <= AHEAD; n++) {
      const next = day + n * step;
      if (next < this.maps.days[0] || next > this.maps.days[1]) return;
      this.frames.frame(this.layer, next, ...visible).catch(() => undefined); // asked for again
    }
  }

  private async choose(cell: Cell, site?: Site): Promise<void> {
    this.view.choose(cell);
    this.view.bringIntoView(cell);
    await this.panel.choose(cell, site).catch(complain);
    this.keepAddress();
  }

  private async chooseSite(index: number): Promise<void> {
    const site = this.sites[index]!;
    const cell = this.maps.grid.cellOf(site.place);
    if (cell) await this.choose(cell, site);
  }

  private drawSites(): void {
    this.view.setDots(dotsOf(this.sites, this.arm));
    element('legend-sites').hidden = element('site-choice').hidden = !this.sites.length;
    const names = this.sites.map((site, index): [string, string] => [String(index), site.name]);
    fillSelect(element('site-list'), [['', 'choose one'], ...names], '');
  }

  private async changeArm(arm: string): Promise<void> {
    const maps = await Maps.open(this.release.store, arm);
    this.arm = arm;
    this.useMaps(maps);
    await this.fitRanges();
    this.panel.use(maps, arm, this.layer);
    this.drawSites();
    await this.shown.ask(this.day);
    await this.panel.again();
  }

  private async changeLayer(id: string): Promise<void> {
    this.layer = this.layers.find((layer) => layer.id === id)!;
    drawLegend(this.maps, this.layer);
    this.panel.use(this.maps, this.arm, this.layer);
    await this.shown.ask(this.day);
  }

  private connect(): void {
    const on = <T extends HTMLElement>(id: string, event: string, act: (of: T) => unknown) => {
      const of = element<T>(id);
      of.addEventListener(event, () => void Promise.resolve(act(of)).catch(complain));
    };
    on<HTMLSelectElement>('layer', 'change', ({value}) => this.changeLayer(value));
    on<HTMLSelectElement>('arm', 'change', ({value}) => this.changeArm(value));
    on<HTMLInputElement>('opacity', 'input', ({value}) => this.view.setOpacity(Number(value) / 100));
    on<HTMLInputElement>('marks', 'change', ({checked}) => this.view.cells.showMarks(checked));
    on<HTMLInputElement>('sites', 'change', ({checked}) => this.view.showDots(checked));
    on<HTMLSelectElement>('site-list', 'change', ({value}) => value && this.chooseSite(Number(value)));
    on('fit', 'click', () => this.view.fit());
    element('go').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.goToPlace();
    });
  }

  private async goToPlace(): Promise<void> {
    const [lat, lon] = ['lat', 'lon'].map((id) => element<HTMLInputElement>(id).value.replace(',', '.'));
    const place = parsePlace(lat!, lon!);
    const cell = place && this.maps.grid.cellOf(place);
    tell('problem', cell ? '' : `latitude ${lat}, longitude ${lon} is outside of the maps`);
    if (cell) await this.choose(cell);
  }

  private keepAddress(): void {
    const cell = this.panel.chosenCell;
    const query = formatAddress({
      date: this.day,
      layer: this.layer.id,
      arm: this.arm,
      ...(cell && {place: this.maps.grid.centre(cell)}),
    });
    history.replaceState(null, '', query);
  }

  /** Title, citation and licence. */
  private describe(): void {
    const {title, arms, citation, license, files} = this.release;
    document.title = title;
    element('title').textContent = title;
    fillSelect(element('arm'), arms.map((arm) => [arm, arm]), this.arm);
    element('citation').textContent = citation;
    element('licence').textContent = `Licence: ${license}`;
    const pages: [string, string][] = [['report', 'report'], ['card', 'model card']];
    for (const [name, text] of pages) {
      if (!files[name]) continue;
      const link = document.createElement('a');
      link.href = `${this.release.store.root}${files[name]}`;
      link.textContent = text;
      element('pages').append(' · ', link);
    }
  }

  /** Where a cell is on the page, for tests. */
  pixelOf(cell: Cell): [number, number] {
    return this.view.pixelOf(cell);
  }
}

async function main(): Promise<void> {
  const release = await openRelease(new URL('.', location.href).href);
  const asked = parseAddress(location.search).arm;
  const arm = release.arms.find((each) => each === asked) ?? release.arms[0];
  if (!arm) throw new Error(`${release.store.root}collection.json: names no maps`);
  const app = new App(release, arm, await Maps.open(release.store, arm));
  Object.assign(globalThis, {viewer: app});
  await app.start();
}

main().catch(complain);
