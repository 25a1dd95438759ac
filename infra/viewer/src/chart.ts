/** The chart of a series. */
import uPlot from 'uplot';
import {DAY_S, dayInWords} from './days';
import type {Series} from './series';

const HEIGHT_PX = 240;
const BAND = 'rgba(0, 34, 78, 0.18)';
const MEAN = '#00224e';
export const SERIES_COLOURS = {mean: MEAN, satellite: '#b35a00', site: '#d4006a', heldOut: '#5b3fa6'};

export class Chart {
  private plot: uPlot | undefined;
  private day = 0;

  constructor(
    private readonly home: HTMLElement,
    private readonly onDay: (day: number) => void,
  ) {
    new ResizeObserver(() => this.plot?.setSize({width: this.width, height: HEIGHT_PX})).observe(home);
  }

  /** Draw a series; `factor` and `unit` are those of the axis, 100 and % for moisture. */
  draw(series: Series, factor: number, unit: string): void {
    this.plot?.destroy();
    const scaled = (values: (number | null)[]) => values.map((v) => (v === null ? null : v * factor));
    const parts = [series.low, series.high, series.satellite, series.site, series.heldOut, series.mean];
    const data = [series.days.map((day) => day * DAY_S), ...parts.map(scaled)] as uPlot.AlignedData;
    this.plot = new uPlot(this.options(unit), data, this.home);
    this.plot.over.addEventListener('click', () => {
      const index = this.plot?.cursor.idx;
      if (index != null) this.onDay(series.days[index]!);
    });
  }

  clear(): void {
    this.plot?.destroy();
    this.plot = undefined;
  }

  /** Mark a day. */
  mark(day: number): void {
    this.day = day;
    this.plot?.redraw(false);
  }

  private get width(): number {
    return Math.max(200, this.home.clientWidth);
  }

  private options(unit: string): uPlot.Options {
    const points = (stroke: string): uPlot.Series => ({
      stroke,
      paths: () => null,
      points: {show: true, size: 3, fill: stroke, width: 0},
    });
    return {
      width: this.width,
      height: HEIGHT_PX,
      legend: {show: false},
      cursor: {y: false, points: {show: false}},
      scales: {x: {time: true}},
      tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1e3), 'Etc/UTC'),
      axes: [{}, {size: 52, values: (_, ticks) => ticks.map((tick) => `${+tick.toFixed(4)} ${unit}`)}],
      series: [
        {},
        {stroke: 'transparent', points: {show: false}},
        {stroke: 'transparent', points: {show: false}},
        points(SERIES_COLOURS.satellite),
        points(SERIES_COLOURS.site),
        {stroke: SERIES_COLOURS.heldOut, width: 1.5, dash: [5, 3], points: {show: false}},
        {stroke: MEAN, width: 1.5, points: {show: false}},
      ],
      bands: [{series: [2, 1], fill: BAND}],
      hooks: {draw: [(plot) => this.drawDay(plot)]},
    };
  }

  private drawDay(plot: uPlot): void {
    const x = plot.valToPos(this.day * DAY_S, 'x', true);
    const {left, top, width, height} = plot.bbox;
    if (!this.day || x < left || x > left + width) return;
    plot.ctx.save();
    plot.ctx.strokeStyle = '#d4006a';
    plot.ctx.lineWidth = devicePixelRatio;
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, top);
    plot.ctx.lineTo(x, top + height);
    plot.ctx.stroke();
    plot.ctx.restore();
  }
}

/** What the chart shows, for people who do not see it. */
export function chartInWords(series: Series, unit: string, factor: number): string {
  const known = series.mean.filter((value) => value !== null).map((value) => value * factor);
  if (!known.length) return 'The cell has no values.';
  const [low, high] = [Math.min(...known), Math.max(...known)].map((v) => v.toFixed(factor === 100 ? 0 : 3));
  const mean = (known.reduce((a, b) => a + b, 0) / known.length).toFixed(factor === 100 ? 0 : 3);
  const [first, last] = [series.days[0]!, series.days.at(-1)!].map(dayInWords);
  return `Values from ${first} to ${last}: between ${low} and ${high} ${unit}, ${mean} ${unit} on average.`;
}
