/** What Ctrl+K finds: pages, models that run, and models that can be launched. */

export interface Entry {
  /** Where it leads: an address after `#`. */
  hash: string;
  name: string;
  kind: 'page' | 'running' | 'chat' | 'launch';
}

const MOST = 12;

/** The entries that have all words of the text; those whose name begins with it come first. */
export function matches(entries: Entry[], text: string): Entry[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = entries.filter((each) => words.every((word) => `${each.kind} ${each.name}`.toLowerCase().includes(word)));
  const first = words[0] ?? '';
  const rank = (each: Entry): number => (each.name.toLowerCase().startsWith(first) ? 0 : 1);
  return found
    .map((each, n) => ({ each, n }))
    .sort((a, b) => rank(a.each) - rank(b.each) || a.n - b.n)
    .slice(0, MOST)
    .map(({ each }) => each);
}
