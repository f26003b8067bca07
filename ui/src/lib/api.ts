/** Calls of the server's REST routes. Every address is relative to the page, so a path in front of it is kept. */

export interface Suggestion {
  change: string;
  description: string;
  command: string;
}

export interface Problem {
  code: string | null;
  status: number;
  cause: string;
  hint: string | null;
  stage?: string | null;
  log_tail?: string[];
  suggestions?: Suggestion[];
  /** Whether the page itself has written the cause, so that it has it in each language. */
  isOwn?: true;
}

/** A problem that the page itself has found: no answer of the server has its words. */
export function ownProblem(cause: string, code: string | null = null, status = 0): Problem {
  return { code, status, cause, hint: null, isOwn: true };
}

/** An answer of the server that is an error, or the lack of an answer. */
export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.cause);
  }
}

const ROOT = '..';

export function address(path: string): string {
  return `${ROOT}${path}`;
}

/** The address of the server as clients outside of this page write it. */
export function serverAddress(): string {
  return new URL(`${ROOT}/`, document.baseURI).href.replace(/\/$/, '');
}

export async function send(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  // No page of another site can set this header, so the server knows that the request is this page's.
  headers.set('x-xinference', '1');
  if (typeof options.body === 'string') headers.set('content-type', 'application/json');
  let response: Response;
  try {
    response = await fetch(address(path), { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(ownProblem('The server does not answer.', 'unreachable'));
  }
  if (!response.ok) throw new ApiError(await problemOf(response));
  return response;
}

async function problemOf(response: Response): Promise<Problem> {
  const { status } = response;
  const said = { code: null, status, cause: '', hint: null };
  const other = ownProblem('The server answered {status}.', null, status);
  try {
    const body: unknown = await response.json();
    if (!isObject(body)) return other;
    if (isObject(body.problem)) return { ...said, ...(body.problem as object) } as Problem;
    if (isObject(body.error)) {
      const { message, code } = body.error as { message?: string; code?: string };
      return message ? { ...said, cause: message, code: code ?? null } : other;
    }
  } catch {
    // The body is not JSON: a proxy has answered.
  }
  return other;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await send(path, { signal })).json() as Promise<T>;
}

export async function post<T>(path: string, body: unknown = {}, signal?: AbortSignal): Promise<T> {
  return (await send(path, { method: 'POST', body: JSON.stringify(body), signal })).json() as Promise<T>;
}

export async function remove(path: string): Promise<void> {
  await send(path, { method: 'DELETE' });
}

// -- shapes -----------------------------------------------------------------------------------------------------

export interface Replica {
  replica_id: number;
  replica_model_uid: string;
  status: string;
  engine_pid: number | null;
  gpu_idx: number[];
  created_ts: number;
  error_message: string | null;
}

export interface Deployment {
  model_uid: string;
  status: string;
  stage: string;
  model_type: string;
  model_name: string;
  model_engine: string | null;
  model_format: string | null;
  model_size_in_billions: string | number | null;
  quantization: string | null;
  model_ability: string[];
  context_length: number | null;
  replica: number;
  aliases: string[];
  memory_used_bytes: number | null;
  gpu_memory_used_bytes: number | null;
  instance_created_ts: number;
  on_demand: boolean;
  /** Seconds without a request after which an on-demand model is unloaded. */
  ttl?: number | null;
  pin?: boolean;
  priority?: number;
  model_version: string | null;
  problem: Problem | null;
  replicas: Replica[];
}

export interface ServerStatus {
  version: string;
  pid: number;
  uptime: number;
  /** Only for keys with `manage`. */
  home?: string | null;
  workers: Record<
    string,
    { status: Record<string, { usage: number; total: number; memory_used: number; memory_total: number }> }
  >;
}

/** A file that a launch or a download fetches. */
export interface MovingFile {
  file_name: string;
  bytes_done: number;
  bytes_total: number | null;
  progress: number;
  bytes_per_second: number | null;
  seconds_left: number | null;
}

/** A launch or a load that goes on. */
export interface Launching {
  model_uid: string;
  stage: string;
  progress: number;
  download_files: MovingFile[];
}

export interface Download {
  cache_uid: string;
  model_version?: string;
  status?: string;
  progress?: number;
  error?: string | null;
  download_files?: MovingFile[];
  [name: string]: unknown;
}

/** The rates of the last seconds; a value that is not known is null. */
export interface Rates {
  in_flight: number;
  waiting: number;
  requests_per_second: number;
  prompt_tokens_per_second: number;
  output_tokens_per_second: number;
  first_token_p50: number | null;
  first_token_p95: number | null;
}

export interface StatsPoint {
  time: number;
  all: Rates;
  models: Record<string, Rates>;
  host: { cpu: number | null; memory: number | null } & Record<string, number | null>;
}

/** The memory of one replica on a device: what was planned, and what its processes use. */
export interface Owner {
  model_uid: string;
  replica: number;
  planned: number | null;
  /** The part of `planned` that is in memory when the model is ready. */
  planned_loaded: number | null;
  /** The part of `planned` for saved states of prompts, at most. */
  planned_states: number | null;
  measured: number | null;
  measured_states: number | null;
}

export interface Gpu {
  index: number;
  name: string;
  uuid: string;
  total: number;
  free: number;
  owners: Owner[];
}

export interface Host {
  name: string | null;
  cores: number;
  total: number;
  free: number;
  control_group: { memory_limit: number | null; memory_left: number | null; cpus: number | null } | null;
  owners: Owner[];
}

export interface Disk {
  holds: string[];
  total: number;
  free: number;
}

/** A machine of a cluster's worker; one whose link is down has no host and no devices. */
export interface Worker {
  node: string;
  name: string;
  state: string;
  host: Host | null;
  gpus: Gpu[];
  disks: Disk[];
}

export interface Devices {
  node: string;
  host: Host;
  gpus: Gpu[];
  no_gpu_reason: string | null;
  disks: Disk[];
  workers?: Worker[];
}

export interface DeploymentEvent {
  event_id: number;
  event_ts: number;
  event_type: string;
  stage: string;
  event_content: string;
}

/** Where one rank of one replica runs. */
export interface PlannedPlace {
  replica: number;
  rank: number;
  node: string;
  /** GPUs of the node; empty: its CPU. */
  devices: number[];
}

export interface Plan {
  model_uid: string;
  version: string;
  engine: string;
  hub: string | null;
  model_id: string | null;
  files: { name: string; size: number | null }[];
  context_length: number | null;
  slots: number | null;
  threads: number | null;
  replica: number;
  /** The GPUs of each replica; empty on the CPU. */
  devices: number[][];
  /** Each of them has all bytes of `memory`; empty: not decided yet. */
  places: PlannedPlace[];
  memory: {
    weights: number;
    kv_cache: number;
    overhead: number;
    saved_states: number | null;
    /** null: not known before the download. */
    total: number | null;
    loaded: number | null;
    source: string | null;
  } | null;
  download_bytes: number | null;
  disk: { purpose: string; folder: string; needed_bytes: number; free_bytes: number }[];
  reasons: string[];
  /** One text for each field of the launch that has no effect. */
  warnings: string[];
}

export interface Spec {
  model_format: string;
  model_size_in_billions: string | number;
  quantizations: string[];
  cache_status?: boolean | boolean[];
}

export interface Family {
  model_name: string;
  is_builtin?: boolean;
  context_length?: number;
  model_lang?: string[];
  model_ability?: string[];
  model_description?: string | null;
  dimensions?: number;
  model_specs: Spec[];
}

export interface EngineRow {
  model_format: string;
  model_size_in_billions: string | number;
  quantization: string;
  engine: string;
  ok: boolean;
  reason: string | null;
}
