/** What fits this machine: each version on each engine, as `GET /v1/fits` answers. */

import { get } from './api';

export interface Fit {
  model_name: string;
  model_type: string;
  model_size_in_billions: string | number;
  model_format: string;
  quantization: string;
  engine: string | null;
  fits: 'now' | 'after_unloading' | 'never';
  unload: string[];
  memory_bytes: number | null;
  context_length: number | null;
  slots: number | null;
  weights_bytes: number | null;
  reason: string | null;
  code: string | null;
}

/** The versions of a model in the order of the catalog, each with its engines. */
export interface VersionRow {
  key: string;
  size: string;
  format: string;
  quantization: string;
  weights: number | null;
  cells: Record<string, Fit>;
  /** The reason of a version that no engine here runs. */
  reason: string | null;
}

export function rowsOf(fits: Fit[]): VersionRow[] {
  const rows = new Map<string, VersionRow>();
  for (const each of fits) {
    const size = String(each.model_size_in_billions);
    const key = [size, each.model_format, each.quantization].join(' ');
    const row = rows.get(key) ?? { key, size, format: each.model_format, quantization: each.quantization, weights: each.weights_bytes, cells: {}, reason: null };
    if (each.engine === null) row.reason = each.reason;
    else row.cells[each.engine] = each;
    rows.set(key, row);
  }
  return [...rows.values()];
}

/** The engines that run at least one of the versions here, and those that run none, each with its reason. */
export function enginesOf(fits: Fit[]): { able: string[]; unable: [string, string][] } {
  const names = [...new Set(fits.map((each) => each.engine).filter((each) => each !== null))];
  const isUnable = (name: string): boolean => fits.filter((each) => each.engine === name).every((each) => each.code === 'engine_unavailable');
  const reason = (name: string): string => fits.find((each) => each.engine === name)?.reason ?? '';
  return { able: names.filter((name) => !isUnable(name)), unable: names.filter(isUnable).map((name) => [name, reason(name)]) };
}

const RANK = { now: 2, after_unloading: 1, never: 0 } as const;

/** The best of all versions of each model. */
export function bestOf(fits: Fit[]): Map<string, Fit['fits']> {
  const best = new Map<string, Fit['fits']>();
  for (const each of fits) {
    const before = best.get(each.model_name);
    if (before === undefined || RANK[each.fits] > RANK[before]) best.set(each.model_name, each.fits);
  }
  return best;
}

export async function fitsOf(type: string, name: string): Promise<Fit[]> {
  const query = new URLSearchParams({ model_type: type, part: name });
  return (await get<Fit[]>(`/v1/fits?${query}`)).filter((each) => each.model_name === name);
}

/** What all models of a type need changes little; the server computes it for seconds, so a tab asks once in five minutes. */
const KEPT = 300_000;
const kept = new Map<string, { at: number; best: Promise<Map<string, Fit['fits']>> }>();

export function bestOfType(type: string): Promise<Map<string, Fit['fits']>> {
  const before = kept.get(type);
  if (before && Date.now() - before.at < KEPT) return before.best;
  const best = get<Fit[]>(`/v1/fits?${new URLSearchParams({ model_type: type })}`).then(bestOf);
  kept.set(type, { at: Date.now(), best });
  best.catch(() => kept.delete(type));
  return best;
}
