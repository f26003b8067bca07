/** A launch as a line for the terminal, as JSON for REST, and as Python for the client. */

import { size } from './format';

export type Value = string | number | boolean | object;
export type Launch = Record<string, Value | null | undefined>;

const FLAGS: Record<string, string> = {
  model_type: '--model-type',
  model_engine: '--model-engine',
  model_size_in_billions: '--size-in-billions',
  model_format: '--model-format',
  quantization: '--quantization',
  model_uid: '--model-uid',
  download_hub: '--download-hub',
  replica: '--replica',
  model_path: '--model-path',
  request_limits: '--request-limits',
  context_length: '--context-length',
  ttl: '--ttl',
  priority: '--priority',
};

function entries(launch: Launch): [string, Value][] {
  return Object.entries(launch).filter((each): each is [string, Value] => {
    const value = each[1];
    return value !== '' && value !== null && value !== undefined;
  });
}

export function body(launch: Launch): Record<string, Value> {
  return Object.fromEntries(entries(launch));
}

export function commandLine(launch: Launch): string {
  const words = ['xinference launch', '--model-name', quoted(String(launch.model_name))];
  for (const [name, value] of entries(launch)) {
    if (name === 'model_name' || (name === 'model_type' && value === 'LLM')) continue;
    if (name === 'n_gpu' && value === 0) words.push('--n-gpu none');
    else if (name === 'on_demand') words.push('--on-demand');
    else if (name === 'pin') words.push('--pin');
    else if (name === 'envs') for (const [variable, text] of Object.entries(value)) words.push('--env', quoted(variable), quoted(String(text)));
    else if (name === 'lora_modules') for (const [adapter, folder] of adapters(value)) words.push('--lora-modules', quoted(adapter), quoted(folder));
    else words.push(...option(name, value));
  }
  return words.join(' ');
}

/** The adapters of a launch: each name in requests, and its folder. */
function adapters(value: Value): [string, string][] {
  const maps = Array.isArray(value) ? value : [value];
  return maps.flatMap((each) => (typeof each === 'object' && each !== null ? (Object.entries(each) as [string, string][]) : []));
}

function option(name: string, value: Value): string[] {
  const shown = name === 'model_size_in_billions' ? size(String(value)).replace(/B$/, '') : written(value);
  return [FLAGS[name] ?? `--${name}`, quoted(shown)];
}

/** A value as text; objects are JSON. */
function written(value: Value): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function quoted(word: string): string {
  return /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function python(launch: Launch, server: string): string {
  const fields = entries(launch).map(([name, value]) => `    ${name}=${literal(value)},`);
  const call = ['uid = client.launch_model(', ...fields, ')'].join('\n');
  const needsJson = entries(launch).some(([, value]) => typeof value === 'object');
  return `${needsJson ? 'import json\n\n' : ''}from xinference.client import Client\n\nclient = Client(${literal(server)})\n${call}`;
}

function literal(value: Value): string {
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  // JSON in Python: its three words have other names there.
  return typeof value === 'object' ? `json.loads(${JSON.stringify(JSON.stringify(value))})` : JSON.stringify(value);
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

/** The fields of a launch that the form has, by their names in the form's address. */
const IN_ADDRESS: Record<string, string> = {
  size: 'model_size_in_billions',
  format: 'model_format',
  quantization: 'quantization',
  engine: 'model_engine',
  context: 'context_length',
  slots: 'n_parallel',
  replicas: 'replica',
  uid: 'model_uid',
  limit: 'request_limits',
  idle: 'ttl',
  importance: 'priority',
  path: 'model_path',
};
/** Fields that another control of the form has, or that the form must not repeat. */
const APART = new Set(['model_name', 'model_type', 'n_gpu', 'on_demand', 'pin', 'envs', 'lora_modules']);

/** The address of the form with the choices of an earlier launch. */
export function addressOf(launch: Launch): string {
  const query = new URLSearchParams();
  const fields = new Set([...Object.values(IN_ADDRESS), ...APART]);
  for (const [name, field] of Object.entries(IN_ADDRESS)) {
    const value = launch[field];
    if (value !== null && value !== undefined && value !== '') query.set(name, String(value));
  }
  if (launch.n_gpu === 0) query.set('device', 'cpu');
  if (launch.on_demand) query.set('ondemand', '1');
  if (launch.pin) query.set('pin', '1');
  if (launch.lora_modules) query.set('lora', adapters(launch.lora_modules).map((each) => each.join('=')).join('\n'));
  const extra = entries(launch).filter(([name]) => !fields.has(name));
  if (extra.length) query.set('extra', extra.map(([name, value]) => `${name}=${written(value)}`).join('\n'));
  const path = [launch.model_type ?? 'LLM', launch.model_name].map((each) => encodeURIComponent(String(each))).join('/');
  return `#/launch/${path}${query.size ? `?${query}` : ''}`;
}
