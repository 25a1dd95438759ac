/** Lines of outlines.json, as scripts/outlines.mjs packs them. */
import {project} from './grid';

export interface Outlines {
  step: number;
  countries: number[][];
  states: number[][];
}

/** The points of a line in metres. */
export function unpacked(line: number[], step: number): [number, number][] {
  const points: [number, number][] = [];
  let [lon, lat] = [0, 0];
  for (let i = 0; i < line.length; i += 2) {
    lon += line[i]!;
    lat += line[i + 1]!;
    points.push(project({lon: lon * step, lat: Math.max(-89.9, Math.min(89.9, lat * step))}));
  }
  return points;
}
