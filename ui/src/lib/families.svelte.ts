/** The lists of models that can be launched, by type. */

import { get, type Family } from './api';
import { sizeNumber } from './format';

export interface Summary extends Omit<Family, 'model_specs'> {
  model_sizes: (string | number)[];
  model_formats: string[];
}

export interface Row {
  type: string;
  family: Summary;
  sizes: (string | number)[];
  formats: string[];
}

let lists = $state.raw<Record<string, Row[]>>({});
/** A list that was asked for before a page needs it. */
let early: { of: string; list: Promise<Summary[]> } | null = null;

/** The families of a type that were read last; null before that. */
export function rowsOf(of: string): Row[] | null {
  return lists[of] ?? null;
}

/** Ask for the families of a type now: the next `readRows` waits for this answer. */
export function askEarly(of: string): Promise<void> {
  const list = ask(of);
  early = { of, list };
  return list.then(
    (found) => keep(of, found),
    () => {
      early = null; // `readRows` asks again, and tells
    },
  );
}

/** Read the families of a type, also when they were read before: a model may have been registered since. */
export async function readRows(of: string): Promise<void> {
  const asked = early?.of === of ? early.list : ask(of);
  early = null;
  keep(of, await asked);
}

function ask(of: string): Promise<Summary[]> {
  return get<Summary[]>(`/v1/model_registrations/${of}?summary=true`);
}

function keep(of: string, found: Summary[]): void {
  lists = { ...lists, [of]: found.map((family) => rowOf(of, family)) };
}

function rowOf(type: string, family: Summary): Row {
  // A custom model whose file can't be read has neither sizes nor formats.
  const sizes = (family.model_sizes ?? []).toSorted((a, b) => sizeNumber(a) - sizeNumber(b));
  return { type, family, sizes, formats: family.model_formats ?? [] };
}
