/** Small helpers for the elements of the page. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found as T;
}

/** Set a text, and hide the element if there is none. */
export function tell(id: string, text: string): void {
  const where = element(id);
  where.textContent = text;
  where.hidden = !text;
}

/** Say what went wrong, in one line. */
export function complain(error: unknown): void {
  tell('problem', error instanceof Error ? error.message : String(error));
}

/** Show the last of several requests only, and one at a time: others would be out of date. */
export class Latest<T> {
  private running: Promise<void> | undefined;
  private next: T | undefined;

  constructor(private readonly act: (request: T) => Promise<void>) {}

  /** Ends when the request, or a later one in its place, is done. */
  async ask(request: T): Promise<void> {
    this.next = request;
    this.running ??= this.work().finally(() => (this.running = undefined));
    await this.running;
  }

  private async work(): Promise<void> {
    while (this.next !== undefined) {
      const request = this.next;
      this.next = undefined;
      await this.act(request);
    }
  }
}

export function fillSelect(select: HTMLSelectElement, options: [string, string][], chosen: string): void {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

export function download(name: string, text: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/csv'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
