/** Rates and loads over a chosen time, which grow with the stream. */

import { get, type StatsPoint } from './api';
import { live } from './live.svelte';

type Values = Record<string, (number | null)[]>;

interface Columns {
  step: number;
  t: number[];
  all: Values;
  models: Record<string, Values>;
  host: Values;
}

export type Range = '900' | '21600' | '604800';
const NONE: Columns = { step: 2, t: [], all: {}, models: {}, host: {} };

export class History {
  readonly #model: string | null;
  range = $state<Range>('900');
  #columns = $state.raw<Columns>(NONE);

  constructor(model: string | null) {
    this.#model = model;
    $effect(() => void this.#load(this.range));
    $effect(() => {
      if (live.stats) this.#grow(live.stats);
    });
  }

  get times(): number[] {
    return this.#columns.t;
  }

  /** The values of a rate; nulls where the model has had no request. */
  rates(name: string): (number | null)[] {
    const of = this.#model === null ? this.#columns.all : (this.#columns.models[this.#model] ?? {});
    return of[name] ?? this.times.map(() => null);
  }

  host(name: string): (number | null)[] {
    return this.#columns.host[name] ?? this.times.map(() => null);
  }

  async #load(range: Range): Promise<void> {
    const since = Math.floor(Date.now() / 1000) - Number(range);
    const of = this.#model === null ? '' : `&model=${encodeURIComponent(this.#model)}`;
    try {
      const columns = await get<Columns>(`/v1/stats?since=${since}${of}`);
      if (range === this.range) this.#columns = columns;
    } catch {
      // The page shows that the server does not answer; a key of certain models may not read the rates of all.
    }
  }

  #grow(point: StatsPoint): void {
    const { t, step } = this.#columns;
    const last = t.at(-1) ?? 0;
    if (point.time <= last) return;
    // Points of minutes are means, which the server computes.
    if (this.range !== '900') {
      if (point.time - last > 2 * step) void this.#load(this.range);
      return;
    }
    const first = t.findIndex((time) => time > point.time - Number(this.range));
    const longer = (values: Values, added: object): Values => {
      const names = new Set([...Object.keys(values), ...Object.keys(added)]);
      const from = first < 0 ? t.length : first;
      const column = (name: string): (number | null)[] => {
        const before = values[name] ?? t.map(() => null);
        return [...before.slice(from), (added as Record<string, number | null>)[name] ?? null];
      };
      return Object.fromEntries([...names].map((name) => [name, column(name)]));
    };
    const models = this.#model === null ? {} : { [this.#model]: longer(this.#columns.models[this.#model] ?? {}, point.models[this.#model] ?? {}) };
    const times = [...t.slice(first < 0 ? t.length : first), point.time];
    this.#columns = { step, t: times, all: longer(this.#columns.all, point.all), models, host: longer(this.#columns.host, point.host) };
  }
}
