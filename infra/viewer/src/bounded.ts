/** A cache that drops what was used longest ago when its content exceeds a size in bytes. */
export class BoundedCache<T> {
  private readonly entries = new Map<string, {value: T; size: number}>();
  private total = 0;

  constructor(private readonly limit: number) {}

  get bytes(): number {
    return this.total;
  }

  get(key: string): T | undefined {
    const found = this.entries.get(key);
    if (!found) return undefined;
    this.entries.delete(key); // and put it at the end, as the one used last
    this.entries.set(key, found);
    return found.value;
  }

  set(key: string, value: T, size: number): void {
    this.delete(key);
    if (size > this.limit) return;
    this.entries.set(key, {value, size});
    this.total += size;
    for (const oldest of this.entries.keys()) {
      if (this.total <= this.limit) break;
      this.delete(oldest);
    }
  }

  private delete(key: string): void {
    const found = this.entries.get(key);
    if (!found) return;
    this.entries.delete(key);
    this.total -= found.size;
  }
}
