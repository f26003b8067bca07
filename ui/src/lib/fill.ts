/** The values in a text. */

/** The text with each `{name}` replaced by its value, and each `{name:one|many}` by the form of its number. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)(?::([^|{}]*)\|([^{}]*))?\}/g, (whole, name: string, one?: string, many?: string) => {
    const value = String(values[name] ?? whole);
    return one === undefined || many === undefined ? value : value === '1' ? one : many;
  });
}
