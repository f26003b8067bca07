/** Escape sequences of terminals in the output of engines. */

// Sequences of control (colours, cursor), of the operating system (titles, links), and single control characters.
// eslint-disable-next-line no-control-regex
const SEQUENCES = /\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-_]|[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

/** The text without escape sequences; of a line that a program has overwritten, only what was last in it. */
export function plain(text: string): string {
  return text
    .split('\n')
    .map((line) => line.replace(/\r+$/, '').split('\r').at(-1) as string)
    .join('\n')
    .replace(SEQUENCES, '');
}
