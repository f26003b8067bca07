// The length of a completion that names none.

const MOST = 256;

/** Half of the context at most: some engines refuse a prompt and a number that exceed the context together. */
export function completionTokens(context: number | null | undefined): number {
  return context ? Math.max(1, Math.min(MOST, Math.floor(context / 2))) : MOST;
}
