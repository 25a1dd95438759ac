/** The legend: colours, numbers in units and in percent, and what grey and hatching mean. */
import {gradient} from './colours';
import {isVolumetric, type Layer, unitsInWords} from './layers';
import type {Maps} from './maps';
import {element, tell} from './page';

const TICKS = 5;

export function drawLegend(maps: Maps, layer: Layer): void {
  const variable = maps.variable(layer.name);
  element('legend-bar').style.background = gradient(layer.scale);
  tell('legend-title', layer.title);
  element('legend-ends').replaceChildren(...layer.ends.map((text) => span(text)));
  const [low, high] = layer.range;
  const ticks = Array.from({length: TICKS}, (_, i) => low + ((high - low) * i) / (TICKS - 1));
  const volumetric = isVolumetric(variable);
  const unit = unitsInWords(variable.units);
  const rows = volumetric ? [['%', 100] as const, [unit, 1] as const] : [[unit, 1] as const];
  element('legend-ticks').replaceChildren(
    ...rows.map(([name, factor], number) => {
      const row = document.createElement('div');
      row.className = 'ticks';
      const numbers = ticks.map((tick, i) => (number && i % 2 ? '' : short(tick * factor)));
      row.append(...numbers.map(span), span(name)); // long numbers have room for every other tick
      return row;
    }),
  );
  element('legend-flagged').hidden = !layer.daily;
  element('score-bar').style.background = gradient('score');
}

function short(value: number): string {
  return String(+value.toFixed(Math.abs(value) < 1 ? 3 : 1)).replace('-', '−');
}

function span(text: string): HTMLSpanElement {
  const made = document.createElement('span');
  made.textContent = text;
  return made;
}
