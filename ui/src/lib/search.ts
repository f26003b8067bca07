/** Whether a text of a search occurs in one of the parts of a row, in upper or lower case; an empty text does. */
export function matches(text: string, ...parts: (string | null | undefined)[]): boolean {
  const part = text.trim().toLowerCase();
  return part === '' || parts.some((each) => each?.toLowerCase().includes(part));
}
