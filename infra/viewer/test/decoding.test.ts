import {readFileSync} from 'node:fs';
import {expect, test} from 'vitest';
import * as zarr from 'zarrita';
import {CheckedCrc32c, crc32c} from '../src/crc32c';
import {cut} from '../src/store';

const made = JSON.parse(readFileSync(new URL('sharded.json', import.meta.url), 'utf8')) as {
  files: Record<string, string>;
  values: number[];
};

zarr.registry.set('crc32c', async () => CheckedCrc32c as never);

/** The store that zarr-python has written, in memory; `change` may damage an object. */
function store(change?: (key: string, bytes: Uint8Array) => void): zarr.AsyncReadable {
  const read = (key: string) => {
    const text = made.files[key.slice(1)];
    if (text === undefined) return undefined;
    const bytes = new Uint8Array(Buffer.from(text, 'base64'));
    change?.(key, bytes);
    return bytes;
  };
  return {
    get: async (key) => read(key),
    getRange: async (key, range) => {
      const bytes = read(key);
      if (!bytes) return undefined;
      return cut(bytes, 'suffixLength' in range
        ? `bytes=-${range.suffixLength}`
        : `bytes=${range.offset}-${range.offset + range.length - 1}`);
    },
  };
}

const opened = (from: zarr.AsyncReadable) => zarr.open.v3(zarr.root(from).resolve('a'), {kind: 'array'});

test('shards of zarr-python are read to the last number, absent ones as fill', async () => {
  const array = await opened(store());
  const all = await zarr.get(array);
  expect(all.shape).toEqual([5, 6, 7]);
  expect(Array.from(all.data as Int16Array)).toEqual(made.values);
  expect(made.values.slice(-42)).toEqual(Array(42).fill(-32768));
});

test('a chunk with one wrong bit is refused', async () => {
  const array = await opened(store((key, bytes) => {
    if (key.endsWith('c/0/0/0')) bytes[10]! ^= 1;
  }));
  await expect(array.getChunk([0, 0, 0])).rejects.toThrow(/decode/i);
});

test('CRC-32C has the value of its specification', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
});

test('ranges are cut from whole objects of servers that ignore them', () => {
  const bytes = Uint8Array.of(0, 1, 2, 3, 4);
  expect([...cut(bytes, 'bytes=1-2')]).toEqual([1, 2]);
  expect([...cut(bytes, 'bytes=-2')]).toEqual([3, 4]);
});
