/** The records of requests, as the server lists them, and as a table that other programs read. */

export interface RequestRecord {
  id: string;
  started: number;
  key: string | null;
  model: string | null;
  replica: string | null;
  path: string;
  stream: boolean;
  first_token: number | null;
  output_tokens: number | null;
  status: number;
  code: string | null;
  client_left: boolean;
  waited: { load: number; recovery: number; permit: number; quota: number };
  tokens_per_second: number | null;
  total: number;
  prompt_tokens: number | null;
  cached_tokens: number | null;
  exact: boolean;
}

export interface ActiveRequest {
  id: string;
  started: number;
  key: string | null;
  model: string | null;
  path: string;
  seconds: number;
  first_token: number | null;
  output_tokens: number | null;
  waits_for: string | null;
}

export function waited(record: RequestRecord): number {
  const { load, recovery, permit, quota } = record.waited;
  return load + recovery + permit + quota;
}

const COLUMNS: [string, (record: RequestRecord) => string | number | boolean | null][] = [
  ['id', (each) => each.id],
  ['started', (each) => new Date(each.started * 1000).toISOString()],
  ['key', (each) => each.key],
  ['model', (each) => each.model],
  ['replica', (each) => each.replica],
  ['path', (each) => each.path],
  ['stream', (each) => each.stream],
  ['status', (each) => each.status],
  ['code', (each) => each.code],
  ['waited', waited],
  ['first_token', (each) => each.first_token],
  ['total', (each) => each.total],
  ['prompt_tokens', (each) => each.prompt_tokens],
  ['cached_tokens', (each) => each.cached_tokens],
  ['output_tokens', (each) => each.output_tokens],
  ['exact', (each) => each.exact],
  ['tokens_per_second', (each) => each.tokens_per_second],
];

/** The records as CSV. A text that a spreadsheet would compute begins with an apostrophe. */
export function csv(records: RequestRecord[]): string {
  const rows = [COLUMNS.map(([name]) => name), ...records.map((each) => COLUMNS.map(([, value]) => value(each)))];
  return rows.map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n';
}

function cell(value: string | number | boolean | null): string {
  if (typeof value !== 'string') return value === null ? '' : String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Let the browser save a text as a file. */
export function download(name: string, text: string, type: string): void {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement('a');
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  URL.revokeObjectURL(address);
}
