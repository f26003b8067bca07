/** A launch as a line for the terminal, as JSON for REST, and as Python for the client. */

import { size } from './format';

export type Launch = Record<string, string | number | boolean | null | undefined>;

const FLAGS: Record<string, string> = {
  model_type: '--model-type',
  model_engine: '--model-engine',
  model_size_in_billions: '--size-in-billions',
  model_format: '--model-format',
  quantization: '--quantization',
  model_uid: '--model-uid',
  download_hub: '--download-hub',
  replica: '--replica',
};

function entries(launch: Launch): [string, string | number | boolean][] {
  return Object.entries(launch).filter((each): each is [string, string | number | boolean] => {
    const value = each[1];
    return value !== '' && value !== null && value !== undefined;
  });
}

export function body(launch: Launch): Record<string, string | number | boolean> {
  return Object.fromEntries(entries(launch));
}

export function commandLine(launch: Launch): string {
  const words = ['xinference launch', '--model-name', quoted(String(launch.model_name))];
  for (const [name, value] of entries(launch)) {
    if (name === 'model_name' || (name === 'model_type' && value === 'LLM')) continue;
    const shown = name === 'model_size_in_billions' ? size(String(value)).replace(/B$/, '') : String(value);
    words.push(FLAGS[name] ?? `--${name}`, quoted(shown));
  }
  return words.join(' ');
}

function quoted(word: string): string {
  return /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function python(launch: Launch, server: string): string {
  const fields = entries(launch).map(([name, value]) => `    ${name}=${literal(value)},`);
  const call = ['uid = client.launch_model(', ...fields, ')'].join('\n');
  return `from xinference.client import Client\n\nclient = Client(${literal(server)})\n${call}`;
}

function literal(value: string | number | boolean): string {
  return typeof value === 'boolean' ? (value ? 'True' : 'False') : JSON.stringify(value);
}

export interface Choices {
  size?: string;
  format?: string;
  quantization?: string;
  engine?: string;
  context?: string;
}

const NAMES: Record<string, keyof Choices> = {
  '-s': 'size',
  '--size-in-billions': 'size',
  '-f': 'format',
  '--model-format': 'format',
  '-q': 'quantization',
  '--quantization': 'quantization',
  '-en': 'engine',
  '--model-engine': 'engine',
  '--n_ctx': 'context',
  '--context_length': 'context',
  '--max_model_len': 'context',
};

/** The choices in a launch line that the server suggests. */
export function chosenBy(command: string): Choices {
  const words = command.split(/\s+/);
  const choices: Choices = {};
  words.forEach((word, n) => {
    const name = NAMES[word];
    const value = words[n + 1];
    if (name && value) choices[name] = value;
  });
  return choices;
}
