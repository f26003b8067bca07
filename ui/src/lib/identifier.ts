/** A random identifier; a page by plain HTTP of another machine has no `crypto.randomUUID`. */
export function identifier(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (each) => each.toString(16).padStart(2, '0')).join('');
}
