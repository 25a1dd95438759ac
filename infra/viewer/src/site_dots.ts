/** Sites as dots on the map, coloured by the correlation of what was predicted without them. */
import {colours, css, step} from './colours';
import type {Dot} from './map_view';
import type {Scores, Site} from './sites';

const UNKNOWN = '#6b7280';

/** Of correlations; lower ones have the palest colour. */
export const SCORE_RANGE: [number, number] = [0.5, 1];

export function dotsOf(sites: Site[], arm: string): Dot[] {
  const scale = colours('score');
  return sites.map((site) => {
    const score = site.scores[arm]?.correlation;
    const colour = score === undefined ? UNKNOWN : css(scale[step(score, SCORE_RANGE)]!);
    return {place: site.place, colour, label: site.name};
  });
}

/** The scores of a site in words. */
export function scoresInWords(scores: Scores): string {
  const names: [keyof Scores, string][] = [['correlation', 'correlation'], ['rmse', 'RMSE'], ['bias', 'bias']];
  return names
    .filter(([key]) => scores[key] !== undefined)
    .map(([key, name]) => `${name} ${scores[key]!.toFixed(3).replace('-', '−')}`)
    .join(', ');
}
