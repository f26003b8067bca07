/** Parts of a page that are loaded when its first drawing can be seen. */

import { live } from './live.svelte';
import { painted } from './paint';
import { pause } from './watch';

const NEXT = 1_000;
const TRIES = 3;

/** Load a part when the first drawing can be seen. */
export async function later<T>(load: () => Promise<T>): Promise<T> {
  await painted();
  return patiently(load);
}

/** Load a part; a server that is away for a while is waited for. */
export async function patiently<T>(load: () => Promise<T>): Promise<T> {
  for (let failed = 0; ; ) {
    try {
      return await load();
    } catch (error) {
      if (live.problem === null) failed += 1;
      if (failed >= TRIES) throw error;
      await pause(NEXT);
    }
  }
}
