/** The controls of time: slider, play, steps of days and months, a date field, keys. */
import {addMonths, dayInWords, dayNumber, dayText} from './days';
import {element} from './page';

/** Days per second, by the name of the speed. */
const SPEEDS: Record<string, number> = {slow: 2, normal: 5, fast: 12};

export class TimeBar {
  private day: number;
  private playing = 0;
  private readonly slider = element<HTMLInputElement>('slider');
  private readonly field = element<HTMLInputElement>('date');
  private readonly play = element<HTMLButtonElement>('play');
  private readonly speed = element<HTMLSelectElement>('speed');

  /** `show` shows a day, and ends when it is on the screen. */
  constructor(
    private readonly days: [number, number],
    day: number,
    private readonly show: (day: number) => Promise<void>,
  ) {
    this.day = day;
    [this.slider.min, this.slider.max] = days.map(String) as [string, string];
    [this.field.min, this.field.max] = days.map(dayText) as [string, string];
    this.slider.addEventListener('input', () => this.goTo(Number(this.slider.value)));
    this.field.addEventListener('change', () => this.goTo(dayNumber(this.field.value) ?? this.day));
    this.play.addEventListener('click', () => this.toggle());
    const steps = {'month-back': [0, -1], 'day-back': [-1, 0], 'day-on': [1, 0], 'month-on': [0, 1]};
    for (const [id, [n, months]] of Object.entries(steps)) {
      element(id).addEventListener('click', () => this.step(n!, months!));
    }
    document.addEventListener('keydown', (event) => this.onKey(event));
    this.tell();
  }

  /** Go to a day, or to the first or last one. */
  goTo(day: number): Promise<void> {
    this.day = Math.max(this.days[0], Math.min(this.days[1], day));
    this.tell();
    return this.show(this.day);
  }

  private step(days: number, months: number): void {
    void this.goTo(addMonths(this.day, months) + days);
  }

  private tell(): void {
    this.slider.value = String(this.day);
    this.slider.setAttribute('aria-valuetext', dayInWords(this.day));
    this.field.value = dayText(this.day);
    element('day-in-words').textContent = dayInWords(this.day);
  }

  private toggle(): void {
    this.playing = this.playing ? 0 : this.playing + 1;
    const on = this.playing > 0;
    this.play.setAttribute('aria-pressed', String(on));
    this.play.textContent = on ? '❚❚' : '▶';
    this.play.title = on ? 'Stop (space)' : 'Play (space)';
    if (on) void this.run();
  }

  /** Show one day after the other; a day that takes longer to read is waited for. */
  private async run(): Promise<void> {
    while (this.playing) {
      const begun = performance.now();
      await this.goTo(this.day >= this.days[1] ? this.days[0] : this.day + 1);
      const pause = 1000 / SPEEDS[this.speed.value]! - (performance.now() - begun);
      await new Promise((done) => setTimeout(done, Math.max(0, pause)));
    }
  }

  private onKey(event: KeyboardEvent): void {
    const typing = (event.target as HTMLElement).closest('input, select, textarea, summary');
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = (event.target as HTMLElement).closest('button, a');
    const moves: Record<string, [number, number]> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowDown: [0, -1],
      ArrowUp: [0, 1],
    };
    const move = moves[event.key];
    if (move) this.step(...move);
    else if (event.key === ' ' && !onButton) this.toggle();
    else return;
    event.preventDefault();
  }
}
