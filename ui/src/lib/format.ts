/** Numbers as people read them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < UNITS.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${rest < 10 && unit > 1 ? rest.toFixed(1) : Math.round(rest)} ${UNITS[unit]}`;
}

export function seconds(value: number): string {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d`;
}

/** `0_5` and 0.5 are both written 0.5B. */
export function size(value: string | number | null | undefined): string {
  return value === null || value === undefined || value === 0 ? '' : `${String(value).replace('_', '.')}B`;
}

export function sizeNumber(value: string | number): number {
  return Number(String(value).replace('_', '.'));
}

/** 12345.6789 is written 12,345.679, as `toLocaleString` writes it. The browser's own table of languages takes 17 ms to load, so it is not asked. */
export function count(value: number): string {
  const [whole = '', rest] = String(Math.round(value * 1000) / 1000).split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

/** A local time of today, as 14:05:09; of another day with the date. */
export function clock(epochSeconds: number, now = Date.now()): string {
  const date = new Date(epochSeconds * 1000);
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':');
  return date.toDateString() === new Date(now).toDateString() ? time : `${day(date)} ${time}`;
}

/** A local date and time, as 2026-11-30 14:05: the same in each language, and no order of day and month to guess. */
export function moment(epochSeconds: number): string {
  const date = new Date(epochSeconds * 1000);
  return `${day(date)} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** A local date, as 2026-11-30. */
export function day(date: Date): string {
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
