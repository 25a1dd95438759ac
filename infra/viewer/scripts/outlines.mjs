// Write src/outlines.json: borders of countries and of the states of the USA, simplified.
// Each line is [longitude, latitude, then differences to the point before, ...] in 1/100 degree.
import {readFileSync, writeFileSync} from 'node:fs';
import {mesh} from 'topojson-client';
import {presimplify, quantile, simplify} from 'topojson-simplify';

const STEP = 0.01; // degrees
const read = (name) => JSON.parse(readFileSync(new URL(`../node_modules/${name}`, import.meta.url)));

function lines(topology, object, kept) {
  const weighed = presimplify(topology);
  const simple = kept < 1 ? simplify(weighed, quantile(weighed, kept)) : topology;
  return mesh(simple, simple.objects[object]).coordinates.map(packed).filter((l) => l.length > 4);
}

function packed(line) {
  const steps = [];
  let before = [0, 0];
  for (const point of line) {
    const at = point.map((degrees) => Math.round(degrees / STEP));
    const moved = [at[0] - before[0], at[1] - before[1]];
    if (steps.length && !moved[0] && !moved[1]) continue;
    steps.push(...moved);
    before = at;
  }
  return steps;
}

const countries = lines(read('world-atlas/countries-50m.json'), 'countries', 0.25);
const states = lines(read('us-atlas/states-10m.json'), 'states', 0.4);
const text = JSON.stringify({step: STEP, countries, states});
writeFileSync(new URL('../src/outlines.json', import.meta.url), `${text}\n`);
