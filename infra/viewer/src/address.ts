/** What is on the screen, as the query of the page's address: a link shows the same. */
import {dayNumber, dayText} from './days';
import type {Place} from './grid';

export interface Address {
  date?: number;
  place?: Place;
  layer?: string;
  arm?: string;
}

const DIGITS = 4; // of degrees: ten metres

export function parseAddress(query: string): Address {
  const given = new URLSearchParams(query);
  const found: Address = {};
  const date = dayNumber(given.get('date') ?? '');
  if (date !== undefined) found.date = date;
  const place = parsePlace(given.get('lat'), given.get('lon'));
  if (place) found.place = place;
  for (const name of ['layer', 'arm'] as const) {
    const text = given.get(name);
    if (text) found[name] = text;
  }
  return found;
}

/** A place from two texts; undefined if they are no degrees. */
export function parsePlace(lat: string | null, lon: string | null): Place | undefined {
  if (!lat?.trim() || !lon?.trim()) return undefined;
  const place = {lat: Number(lat), lon: Number(lon)};
  const valid = Math.abs(place.lat) <= 90 && Math.abs(place.lon) <= 180;
  return valid ? place : undefined;
}

export function formatAddress({date, place, layer, arm}: Address): string {
  const query = new URLSearchParams();
  if (date !== undefined) query.set('date', dayText(date));
  if (place) {
    query.set('lat', place.lat.toFixed(DIGITS));
    query.set('lon', place.lon.toFixed(DIGITS));
  }
  if (layer) query.set('layer', layer);
  if (arm) query.set('arm', arm);
  return `?${query}`;
}
