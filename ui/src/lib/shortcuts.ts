/** The keys of the page: `g` and a letter go to a page, `/` to the search, `?` lists them, Ctrl+K searches everything. */

export const PAGE_KEYS: [string, string, string][] = [
  ['h', 'home', 'Home'],
  ['c', 'chat', 'Chat'],
  ['m', 'models', 'Models'],
  ['r', 'running', 'Running'],
  ['d', 'downloads', 'Downloads'],
  ['a', 'activity', 'Activity'],
  ['i', 'machine', 'Machine'],
  ['k', 'keys', 'Keys'],
  ['p', 'api', 'API'],
  ['s', 'settings', 'Settings'],
];

export type Command = { kind: 'go'; page: string } | { kind: 'find' | 'palette' | 'keys' };

export interface Pressed {
  key: string;
  hasControl: boolean;
  hasAlt: boolean;
  /** Whether the key goes into a field. */
  isTyping: boolean;
  /** Milliseconds. */
  time: number;
}

/** The letter after `g` must follow within this time, in milliseconds. */
const SEQUENCE = 1500;

export class Shortcuts {
  #gAt = -Infinity;

  /** The command of a key; null if the key has none. Letters are commands only where `letters` is true. */
  press(pressed: Pressed, letters: boolean): Command | null {
    const follows = pressed.time - this.#gAt < SEQUENCE;
    this.#gAt = -Infinity;
    if (pressed.hasAlt) return null;
    if (pressed.hasControl) return pressed.key === 'k' ? { kind: 'palette' } : null;
    if (pressed.isTyping || !letters) return null;
    if (follows) {
      const page = PAGE_KEYS.find(([key]) => key === pressed.key)?.[1];
      return page === undefined ? null : { kind: 'go', page };
    }
    if (pressed.key === 'g') this.#gAt = pressed.time;
    if (pressed.key === '/') return { kind: 'find' };
    return pressed.key === '?' ? { kind: 'keys' } : null;
  }
}
