/** Days as YYYY-MM-DD and as numbers since 1970-01-01. */
export const DAY_S = 86400;

export function dayNumber(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\d$/.test(text)) return undefined;
  const number = Date.parse(`${text}T00:00:00Z`) / 1000 / DAY_S;
  return Number.isInteger(number) && dayText(number) === text ? number : undefined;
}

export function dayText(day: number): string {
  return new Date(day * DAY_S * 1000).toISOString().slice(0, 10);
}

/** The same day some months later or earlier, or the last day of that month. */
export function addMonths(day: number, months: number): number {
  const date = new Date(day * DAY_S * 1000);
  const total = date.getUTCFullYear() * 12 + date.getUTCMonth() + months;
  const [year, month] = [Math.floor(total / 12), ((total % 12) + 12) % 12];
  const length = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
  return Date.UTC(year, month, Math.min(date.getUTCDate(), length)) / 1000 / DAY_S;
}

/** A day in words, such as 31 December 2018. */
export function dayInWords(day: number): string {
  const options = {day: 'numeric', month: 'long', year: 'numeric', timeZone: 'UTC'} as const;
  return new Date(day * DAY_S * 1000).toLocaleDateString('en-GB', options);
}
