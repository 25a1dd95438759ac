/** Reads objects and ranges of them over HTTP, for zarrita and for JSON files. */
import type {AbsolutePath, AsyncReadable, RangeQuery} from 'zarrita';
import {BoundedCache} from './bounded';

const CACHE_BYTES = 48 * 2 ** 20;
const WAITS_MS = [300, 1200]; // before a request is repeated

// Buckets that may be read but not listed answer 403 for keys that are not there.
const ABSENT = [403, 404, 410];

export class HttpStore implements AsyncReadable {
  private readonly cache = new BoundedCache<Uint8Array>(CACHE_BYTES);
  private readonly waiting = new Map<string, Promise<Uint8Array | undefined>>();

  /** `root` is a URL with a final slash; what never changes is taken from the browser's cache. */
  constructor(
    readonly root: string,
    private readonly immutable = false,
  ) {}

  /** A store of the objects in a folder. */
  below(folder: string): HttpStore {
    return new HttpStore(`${this.root}${folder}`, this.immutable);
  }

  get(key: AbsolutePath): Promise<Uint8Array | undefined> {
    return this.read(key, '');
  }

  getRange(key: AbsolutePath, range: RangeQuery): Promise<Uint8Array | undefined> {
    const part =
      'suffixLength' in range
        ? `bytes=-${range.suffixLength}`
        : `bytes=${range.offset}-${range.offset + range.length - 1}`;
    return this.read(key, part);
  }

  /** The JSON object at a key; undefined if there is none. */
  async json<T>(key: string): Promise<T | undefined> {
    const bytes = await this.get(`/${key}`);
    if (!bytes) return undefined;
    try {
      return JSON.parse(new TextDecoder().decode(bytes)) as T;
    } catch {
      throw new Error(`${this.root}${key}: is not JSON`);
    }
  }

  private async read(key: AbsolutePath, range: string): Promise<Uint8Array | undefined> {
    const name = `${key} ${range}`;
    const kept = this.cache.get(name);
    if (kept) return kept;
    const under = this.waiting.get(name);
    if (under) return under;
    const reading = this.fetchAgain(`${this.root}${key.slice(1)}`, range);
    this.waiting.set(name, reading);
    try {
      const bytes = await reading;
      if (bytes) this.cache.set(name, bytes, bytes.length);
      return bytes;
    } finally {
      this.waiting.delete(name);
    }
  }

  private async fetchAgain(url: string, range: string): Promise<Uint8Array | undefined> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await fetchBytes(url, range, this.immutable ? 'force-cache' : 'no-cache');
      } catch (error) {
        const wait = WAITS_MS[attempt];
        if (wait === undefined) throw error;
        await new Promise((done) => setTimeout(done, wait));
      }
    }
  }
}

async function fetchBytes(url: string, range: string, cache: RequestCache): Promise<Uint8Array | undefined> {
  let answer: Response;
  try {
    answer = await fetch(url, {cache, ...(range && {headers: {Range: range}})});
  } catch (error) {
    throw new Error(`${url}: cannot be read: the server does not answer`, {cause: error});
  }
  if (ABSENT.includes(answer.status)) return undefined;
  if (!answer.ok) throw new Error(`${url}: cannot be read: the server answers ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  return range && answer.status === 200 ? cut(bytes, range) : bytes;
}

/** The part of a whole object that was asked for, from servers that ignore ranges. */
export function cut(bytes: Uint8Array, range: string): Uint8Array {
  const [first, last] = range.slice('bytes='.length).split('-');
  if (!first) return bytes.slice(-Number(last));
  return bytes.slice(Number(first), Number(last) + 1);
}
