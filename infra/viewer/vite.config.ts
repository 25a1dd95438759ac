import {createHash} from 'node:crypto';
import {readdirSync, readFileSync} from 'node:fs';
import {join, relative} from 'node:path';
import {fileURLToPath} from 'node:url';
import {defineConfig, type Plugin} from 'vite';

const ROOT = fileURLToPath(new URL('.', import.meta.url));
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const BUNDLED = ['ol', 'zarrita', '@zarrita/storage', 'proj4', 'wkt-parser', 'mgrs', 'uplot', 'fzstd', 'rbush', 'quickselect'];
const DATA = ['us-atlas', 'world-atlas'];

/** All source files, relative to this folder, in the order of their names. */
function sources(folder = ROOT): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(folder, {withFileTypes: true})) {
    const path = join(folder, entry.name);
    if (entry.name === 'node_modules' || entry.name === 'outlines.json') continue;
    if (entry.isDirectory()) found.push(...sources(path));
    else found.push(relative(ROOT, path).replaceAll('\\', '/'));
  }
  return found.sort();
}

/** The digest of all sources, which a test in Python computes too. */
export function digest(): string {
  const all = createHash('sha256');
  for (const name of sources()) {
    const content = createHash('sha256').update(readFileSync(join(ROOT, name))).digest('hex');
    all.update(`${name} ${content}\n`);
  }
  return all.digest('hex');
}

/** Adds the digest of the sources, and the licences of what is bundled, to the built files. */
function records(): Plugin {
  return {
    name: 'records',
    generateBundle() {
      const source = `${JSON.stringify({sources_sha256: digest()})}\n`;
      this.emitFile({type: 'asset', fileName: 'viewer/build.json', source});
      const parts = [...BUNDLED, ...DATA].map((name) => {
        const folder = join(ROOT, 'node_modules', name);
        const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
        const about = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
        const text = file ? readFileSync(join(folder, file), 'utf8') : `Licence: ${about.license}`;
        return `${name} ${about.version}\n\n${text.trim()}\n`;
      });
      this.emitFile({type: 'asset', fileName: 'viewer/licences.txt', source: parts.join('\n---\n\n')});
    },
  };
}

export default defineConfig({
  base: './',
  resolve: {
    alias: [
      // The decoders of numcodecs are WebAssembly of 750 kB; maps need Zstandard only.
      {find: /^numcodecs\/zstd$/, replacement: here('src/zstd.ts')},
      {find: /^numcodecs\/(blosc|lz4)$/, replacement: here('src/no_codec.ts')},
    ],
  },
  build: {
    outDir: here('../../pipeline/viewer/static'),
    assetsDir: 'viewer',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: {polyfill: false},
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 900,
    rollupOptions: {
      output: {
        entryFileNames: 'viewer/[name]-[hash].js',
        chunkFileNames: 'viewer/[name]-[hash].js',
        assetFileNames: 'viewer/[name]-[hash][extname]',
      },
    },
  },
  plugins: [records()],
  test: {include: ['test/**/*.test.ts']},
} as import('vite').UserConfig);
