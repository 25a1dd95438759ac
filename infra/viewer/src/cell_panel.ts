/** What is known of the cell under the cursor, or else of the chosen one; and its series. */
import {Chart, chartInWords, SERIES_COLOURS} from './chart';
import {dayInWords} from './days';
import type {Cell} from './grid';
import {inWords, isVolumetric, type Layer, unitsInWords} from './layers';
import {FLAG, type Maps} from './maps';
import {complain, download, element, Latest, tell} from './page';
import type {Release} from './release';
import {asCsv, asPython, type Observed, readSeries, type Series} from './series';
import {scoresInWords} from './site_dots';
import {dated, type Observations, type Site} from './sites';
import {
  distanceInWords,
  flagsInWords,
  intervalInWords,
  percentileInWords,
  placeInWords,
  type Reading,
  valueInWords,
} from './words';

const HELD_OUT = 'out_of_fold';

export class CellPanel {
  private maps!: Maps;
  private arm = '';
  private layer!: Layer;
  private day = 0;
  private hovered: Cell | undefined;
  private chosen: Cell | undefined;
  private series: Series | undefined;
  private asked: Site | undefined;
  private sites: Site[] = [];
  private readonly chart: Chart;
  private readonly reading = new Latest<Cell>((cell) => this.read(cell).catch(complain));

  constructor(
    private readonly release: Release,
    private readonly observations: Observations,
    goTo: (day: number) => void,
  ) {
    this.chart = new Chart(element('series'), goTo);
    element('csv').addEventListener('click', () => this.downloadCsv());
    element('python').addEventListener('click', () => void this.copy(this.python(), 'Copied.'));
    element('link').addEventListener('click', () => void this.copy(location.href, 'Link copied.'));
  }

  get chosenCell(): Cell | undefined {
    return this.chosen;
  }

  use(maps: Maps, arm: string, layer: Layer): void {
    [this.maps, this.arm, this.layer] = [maps, arm, layer];
  }

  setSites(sites: Site[]): void {
    this.sites = sites;
    if (this.chosen) void this.showSeries(this.chosen).catch(complain);
  }

  hover(cell: Cell | undefined): void {
    if (cell?.row === this.hovered?.row && cell?.col === this.hovered?.col) return;
    this.hovered = cell;
    void this.tell();
  }

  async showDay(day: number): Promise<void> {
    this.day = day;
    this.chart.mark(day);
    await this.tell();
  }

  /** Choose a cell, and show its series with the satellite's values and those of a site in it. */
  async choose(cell: Cell, site?: Site): Promise<void> {
    [this.chosen, this.asked] = [cell, site];
    const {lat, lon} = this.maps.grid.centre(cell);
    element<HTMLInputElement>('lat').value = lat.toFixed(3);
    element<HTMLInputElement>('lon').value = lon.toFixed(3);
    await Promise.all([this.tell(), this.showSeries(cell)]);
  }

  /** Show the series of the chosen cell again, of other maps. */
  async again(): Promise<void> {
    if (this.chosen) await this.showSeries(this.chosen);
  }

  private async tell(): Promise<void> {
    const cell = this.hovered ?? this.chosen;
    if (cell) await this.reading.ask(cell);
  }

  private async read(cell: Cell): Promise<void> {
    const {maps, day} = this;
    const {target} = maps;
    const names = [target, `${target}_std`, `${target}_percentile`, `${target}_anomaly`, 'attribute_distance'];
    const [values, flag] = await Promise.all([
      Promise.all(names.map((name) => maps.value(name, day, cell))),
      maps.stored(FLAG, day, cell),
    ]);
    const [value, std, percentile, anomaly, distance] = values;
    this.write(cell, day, {value, std, percentile, anomaly, distance, flag});
  }

  private write(cell: Cell, day: number, reading: Reading): void {
    const {maps, arm} = this;
    const which = this.hovered ? 'The cell under the cursor' : 'The chosen cell';
    element('place-title').textContent = `${which}, ${dayInWords(day)}`;
    tell('place', `${placeInWords(maps.grid.centre(cell))} · row ${cell.row}, column ${cell.col}`);
    tell('value', valueInWords(maps, reading));
    tell('interval', intervalInWords(maps, arm, reading));
    tell('layer-value', this.uncertainty(reading));
    tell('percentile', percentileInWords(maps, reading));
    const distance = distanceInWords(reading);
    tell('distance', distance && `Distance to training sites ${distance}`);
    const items = flagsInWords(maps, reading.flag).map((text) => {
      const item = document.createElement('li');
      item.textContent = text;
      return item;
    });
    element('flags').replaceChildren(...items);
    element('flags').hidden = !items.length;
    const reads = element('reading');
    [reads.dataset['row'], reads.dataset['col'], reads.dataset['day']] = [cell.row, cell.col, day].map(String);
    reads.dataset['arm'] = arm;
  }

  private uncertainty({std}: Reading): string {
    if (std === undefined || this.layer.id !== 'uncertainty') return '';
    return `standard deviation ${inWords(std, this.maps.variable(`${this.maps.target}_std`))}`;
  }

  private async showSeries(cell: Cell): Promise<void> {
    const {maps} = this;
    element('series-part').hidden = false;
    element('series').dataset['cell'] = '';
    const site = this.asked ?? this.siteIn(cell);
    const series = await readSeries(maps, cell, await this.observed(cell, site));
    if (this.chosen !== cell || this.maps !== maps) return; // another was chosen meanwhile
    this.series = series;
    const volumetric = isVolumetric(maps.variable(maps.target));
    const unit = volumetric ? '%' : unitsInWords(maps.variable(maps.target).units);
    const factor = volumetric ? 100 : 1;
    this.chart.draw(series, factor, unit);
    this.chart.mark(this.day);
    element('series').setAttribute('aria-label', chartInWords(series, unit, factor));
    element('series').dataset['cell'] = `${cell.row},${cell.col}`;
    this.explain(series, site);
  }

  private siteIn(cell: Cell): Site | undefined {
    return this.sites.find((site) => {
      const at = this.maps.grid.cellOf(site.place);
      return at?.row === cell.row && at.col === cell.col;
    });
  }

  private async observed(cell: Cell, site: Site | undefined): Promise<Observed> {
    const footprint = this.observations.footprint(this.maps.grid.footprint(cell));
    const [satellite, found] = await Promise.all([footprint, site && this.observations.site(site.file)]);
    const predicted = found?.predictions[this.arm];
    tell('site', '');
    if (site && found) tell('site', siteInWords(site, predicted));
    return {
      satellite,
      site: found && dated(found, found.observation),
      heldOut: found && predicted && dated(found, predicted.mean),
    };
  }

  /** Name the lines of the chart that have values. */
  private explain(series: Series, site: Site | undefined): void {
    const keys: [string, string, (number | null)[]][] = [
      [SERIES_COLOURS.mean, 'this cell, with its 90 % interval', series.mean],
      [SERIES_COLOURS.satellite, 'satellite, the 36 km footprint', series.satellite],
      [SERIES_COLOURS.site, `site ${site?.name ?? ''}, observed`, series.site],
      [SERIES_COLOURS.heldOut, 'predicted at the site without its own data', series.heldOut],
    ];
    const shown = keys.filter(([, , values]) => values.some((value) => value !== null));
    element('series-keys').replaceChildren(
      ...shown.map(([colour, text]) => {
        const key = document.createElement('span');
        const swatch = document.createElement('i');
        swatch.className = 'swatch line';
        swatch.style.background = colour;
        key.append(swatch, ` ${text}`);
        return key;
      }),
    );
  }

  private downloadCsv(): void {
    if (!this.series || !this.chosen) return;
    const {lat, lon} = this.maps.grid.centre(this.chosen);
    const about = [
      `${this.maps.target} (${this.maps.variable(this.maps.target).units}), arm ${this.arm}`,
      `cell with centre ${lat.toFixed(4)}, ${lon.toFixed(4)}; ${this.release.source}`,
      `${this.release.citation} Licence: ${this.release.license}`,
    ];
    const name = `${this.arm}_${lat.toFixed(4)}_${lon.toFixed(4)}.csv`;
    download(name, asCsv(this.maps, this.series, about));
  }

  private python(): string {
    const place = this.maps.grid.centre(this.chosen!);
    return asPython(this.release.source, this.arm, this.maps.target, place);
  }

  private async copy(text: string, said: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      element('copied').textContent = said;
    } catch {
      element('copied').textContent = 'The browser does not allow it; here it is:';
      prompt('Copy:', text);
    }
  }
}

function siteInWords(site: Site, predicted: {status: string; scores: object} | undefined): string {
  const scores = predicted ? scoresInWords(predicted.scores) : '';
  const how = predicted?.status === HELD_OUT ? 'predicted by models that had not seen it' : predicted?.status;
  return [`Site ${site.name}, fold ${site.fold}`, scores, how].filter(Boolean).join('; ');
}
