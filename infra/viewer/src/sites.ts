/** Sites and footprints: small JSON files of the release, with values of the test period. */
import {dayNumber} from './days';
import {type Cell, type Place} from './grid';
import {HttpStore} from './store';

export type Values = (number | null)[];

export interface Scores {
  correlation?: number;
  rmse?: number;
  ubrmse?: number;
  bias?: number;
}

export interface Site {
  name: string;
  place: Place;
  fold: number;
  file: string;
  scores: Record<string, Scores>;
}

interface Points {
  features: {
    geometry: {coordinates: [number, number]};
    properties: {site: string; fold: number; file: string; scores?: Record<string, Scores>};
  }[];
}

interface Dated {
  first_day: string;
  n_days: number;
}

export interface SiteSeries extends Dated {
  site: string;
  fold: number;
  observation: Values;
  satellite?: Values;
  predictions: Record<string, {status: string; mean: Values; std: Values; scores: Scores}>;
}

interface FootprintIndex extends Dated {
  rows: Record<string, string>;
}

interface FootprintRow extends Dated {
  footprints: {column: number; observation: Values}[];
}

/** Values from a day on. */
export interface Dates {
  first: number;
  values: Values;
}

export class Observations {
  private index: Promise<FootprintIndex | undefined> | undefined;

  constructor(private readonly store: HttpStore) {}

  async sites(): Promise<Site[]> {
    const points = await this.store.json<Points>('sites.geojson');
    return (points?.features ?? []).map(({geometry, properties}) => ({
      name: properties.site,
      place: {lon: geometry.coordinates[0], lat: geometry.coordinates[1]},
      fold: properties.fold,
      file: properties.file,
      scores: properties.scores ?? {},
    }));
  }

  site(file: string): Promise<SiteSeries | undefined> {
    return this.store.json<SiteSeries>(file);
  }

  /** What the satellite saw of a footprint; undefined if there is nothing of it. */
  async footprint({row, col}: Cell): Promise<Dates | undefined> {
    this.index ??= this.store.json<FootprintIndex>('footprints.json');
    const file = (await this.index)?.rows[String(row)];
    if (!file) return undefined;
    const found = await this.store.json<FootprintRow>(file);
    const footprint = found?.footprints.find((each) => each.column === col);
    return found && footprint ? dated(found, footprint.observation) : undefined;
  }
}

export function dated(of: Dated, values: Values): Dates {
  return {first: dayNumber(of.first_day) ?? 0, values};
}

/** Values on some days in place of their own. */
export function onDays(found: Dates | undefined, days: number[]): Values {
  return days.map((day) => found?.values[day - found.first] ?? null);
}
