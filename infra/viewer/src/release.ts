/** What is shown: the latest release of a publication, or an experiment in a workspace. */
import {HttpStore} from './store';

/** `latest.json`; `source` is added by `soilweave view` and says where the data really lie. */
interface Latest {
  path: string;
  release?: string;
  source?: string;
}

interface Collection {
  title?: string;
  license?: string;
  providers?: {name: string; url?: string}[];
  links?: {rel: string; href: string}[];
  assets?: Record<string, {href: string}>;
  'sci:citation'?: string;
  'sci:doi'?: string;
}

export interface Release {
  store: HttpStore;
  /** URL of the folder with `maps/`, for people who open it elsewhere. */
  source: string;
  title: string;
  arms: string[];
  license: string;
  citation: string;
  doi?: string;
  /** Keys of the files that the release says it has, by the names of its assets. */
  files: Record<string, string>;
}

export async function openRelease(root: string): Promise<Release> {
  const latest = await new HttpStore(root).json<Latest>('latest.json');
  if (!latest?.path) {
    throw new Error(`${root}latest.json: there is no publication here, or it may not be read`);
  }
  const store = new HttpStore(`${root}${latest.path}/`, latest.path.startsWith('releases/'));
  const about = await store.json<Collection>('collection.json');
  if (!about) throw new Error(`${store.root}collection.json: is missing; publish again`);
  const license = about.license && about.license !== 'other' ? about.license : 'not stated';
  return {
    store,
    source: (latest.source ?? store.root).replace(/\/$/, ''),
    title: about.title ?? 'Maps',
    arms: armsOf(about),
    license,
    citation: about['sci:citation'] ?? '',
    doi: about['sci:doi'],
    files: filesOf(about),
  };
}

/** The arms, from the links to items/{arm}.json; `multiscale` is the first. */
export function armsOf(about: Collection): string[] {
  const items = (about.links ?? []).filter((link) => link.rel === 'item');
  const arms = items.map((link) => /([^/]+)\.json$/.exec(link.href)?.[1] ?? '').filter(Boolean);
  return arms.sort((a, b) => Number(b === 'multiscale') - Number(a === 'multiscale'));
}

function filesOf(about: Collection): Record<string, string> {
  const assets = Object.entries(about.assets ?? {});
  return Object.fromEntries(assets.map(([name, {href}]) => [name, href.replace(/^\.\//, '')]));
}
