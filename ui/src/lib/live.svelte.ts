/** What the server has now: one stream for all pages of all tabs; questions every few seconds where no stream comes through. */

import { ApiError, get, type Deployment, type Devices, type Download, type Problem, type ServerStatus, type StatsPoint } from './api';
import type { ActiveRequest } from './records';
import { change, NOTHING, snapshot, type ServerState } from './state';
import { painted } from './paint';
import { Tabs } from './tabs';
import { follow, pause } from './watch';

const ASK_SECONDS = 5;

interface Live extends ServerState {
  status: ServerStatus | null;
  /** When the status was read, in seconds since the epoch: its uptime counts from then. */
  statusRead: number;
  problem: Problem | null;
  /** Whether a proxy holds the stream back, so that the page asks. */
  isBlocked: boolean;
  /** How often the server has come back: what a page has asked before that may have failed. */
  returns: number;
}

export const live = $state<Live>({ ...NOTHING, status: null, statusRead: 0, problem: null, isBlocked: false, returns: 0 });

/** What a page hears besides the state: an event of a model, requests that ended, or `news` where anything may have changed. */
type Heard = (event: 'event' | 'ended' | 'news', data: Record<string, unknown>) => void;
const listeners = new Set<Heard>();
let hasAnswered: () => void;

/** Hear events until the returned function is called. */
export function listen(heard: Heard): () => void {
  listeners.add(heard);
  return () => void listeners.delete(heard);
}

/** Resolves when the server has answered: with its state, or with a refusal. */
export const answered = new Promise<void>((resolve) => {
  hasAnswered = resolve;
});

type Message =
  | { kind: 'event'; event: string; data: Record<string, unknown>; id: string | null }
  | { kind: 'problem'; problem: Problem | null; isBlocked: boolean }
  | { kind: 'hello' };

let lastId: string | null = null;
let wake: (() => void) | null = null;

function take(event: string, data: Record<string, unknown>, id: string | null): void {
  // A change without the state that it changes is of no use: a snapshot comes.
  if (live.deployments === null && event !== 'snapshot') return;
  change(live, event, data);
  hasAnswered();
  const isOtherServer = id !== null && runOf(id) !== runOf(lastId ?? '');
  if (id !== null) lastId = id;
  if (event === 'resync') lastId = null;
  if (event === 'event' || event === 'ended') tell(event, data);
  if (event === 'snapshot') tell('news', {});
  if (isOtherServer || (event === 'snapshot' && live.status === null)) void painted().then(readStatus);
}

/** The part of an id that another start of the server changes. */
function runOf(id: string): string {
  return id.slice(0, id.lastIndexOf('-'));
}

function tell(event: 'event' | 'ended' | 'news', data: Record<string, unknown>): void {
  for (const heard of [...listeners]) heard(event, data);
}

const tabs = new Tabs({
  async lead(signal): Promise<void> {
    while (!signal.aborted) {
      const turn = new AbortController();
      const end = (): void => turn.abort();
      signal.addEventListener('abort', end);
      wake = end;
      await follow(
        {
          event(event, data, id) {
            take(event, data, id);
            tabs.say({ kind: 'event', event, data, id } satisfies Message);
          },
          problem(problem) {
            // What the next holder of a session may see is another state.
            if (problem?.status === 401) lastId = null;
            report(problem, live.isBlocked);
          },
          blocked(isBlocked) {
            const wasBlocked = live.isBlocked;
            report(live.problem, isBlocked);
            if (isBlocked && !wasBlocked) void ask(turn.signal);
          },
          lastId: () => (live.deployments === null ? null : lastId),
        },
        turn.signal,
      );
      // The server asks for a key: wait for a login, or for the end.
      if (!turn.signal.aborted) await new Promise((resolve) => turn.signal.addEventListener('abort', resolve));
      signal.removeEventListener('abort', end);
    }
    wake = null;
  },
  hear(heard): void {
    const message = heard as Message;
    if (message.kind === 'event') take(message.event, message.data, message.id);
    else if (message.kind === 'problem') {
      show(message.problem, message.isBlocked);
    } else if (!tabs.isLeader) return;
    else {
      tabs.say({ kind: 'problem', problem: $state.snapshot(live.problem), isBlocked: live.isBlocked } satisfies Message);
      if (live.deployments !== null) {
        tabs.say({ kind: 'event', event: 'snapshot', data: $state.snapshot(snapshot(live)), id: lastId } satisfies Message);
      }
    }
  },
});

function report(problem: Problem | null, isBlocked: boolean): void {
  if (JSON.stringify(problem) === JSON.stringify(live.problem) && isBlocked === live.isBlocked) return;
  show(problem, isBlocked);
  hasAnswered();
  // A state itself cannot be sent to another tab.
  tabs.say({ kind: 'problem', problem: $state.snapshot(problem), isBlocked } satisfies Message);
}

function show(problem: Problem | null, isBlocked: boolean): void {
  const isBack = live.problem !== null && problem === null;
  live.problem = problem;
  live.isBlocked = isBlocked;
  if (!isBack) return;
  live.returns += 1;
  tell('news', {});
}

/** Begin to follow, unless that has begun. */
export function start(): void {
  if (tabs.start()) tabs.say({ kind: 'hello' } satisfies Message);
}

/** Follow nothing until `what` has ended: it changes who may follow, and a request in between would be refused. */
export async function unfollowed(what: () => Promise<void>): Promise<void> {
  tabs.stop();
  try {
    await what();
  } finally {
    lastId = null;
    start();
  }
}

/** Follow as the new holder of the session, with a snapshot first; each tab does so after a log-in or a log-out in any. */
export function refresh(): void {
  if (!tabs.isLeader) return;
  lastId = null;
  live.isBlocked = false;
  wake?.();
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !tabs.isLeader) tabs.say({ kind: 'hello' } satisfies Message);
});
addEventListener('online', () => wake?.());

/** Ask for what the stream would tell, while no stream comes through. */
async function ask(signal: AbortSignal): Promise<void> {
  while (live.isBlocked && !signal.aborted) {
    if (!document.hidden) await askOnce();
    await pause(ASK_SECONDS * 1000, signal);
  }
}

async function askOnce(): Promise<void> {
  try {
    const [models, downloads, active, columns, devices] = await Promise.all([
      get<Deployment[]>('/v1/models/instances'),
      get<{ list: Download[] }>('/v1/downloads').catch(forbidden),
      get<ActiveRequest[]>('/v1/requests/active').catch(forbidden),
      get<Columns>(`/v1/stats?since=${Math.floor(Date.now() / 1000) - 60}`).catch(forbidden),
      get<Devices>('/v1/devices').catch(forbidden),
    ]);
    const requests = active?.length ? [{ key: null, key_id: null, total: active.length, requests: active }] : [];
    const data = { models, downloads: downloads?.list, launches: [], requests, stats: columns && newest(columns), devices };
    take('snapshot', data, null);
    tabs.say({ kind: 'event', event: 'snapshot', data, id: null } satisfies Message);
    report(null, true);
  } catch (error) {
    if (error instanceof ApiError) report(error.problem, true);
  }
}

interface Columns {
  t: number[];
  all: Record<string, (number | null)[]>;
  models: Record<string, Record<string, (number | null)[]>>;
  host: Record<string, (number | null)[]>;
}

/** The last point of columns over time. */
function newest(columns: Columns): StatsPoint | null {
  const at = columns.t.length - 1;
  if (at < 0) return null;
  const point = (of: Record<string, (number | null)[]>): Record<string, number | null> =>
    Object.fromEntries(Object.entries(of).map(([name, values]) => [name, values[at] ?? null]));
  const models = Object.fromEntries(Object.entries(columns.models).map(([uid, of]) => [uid, point(of)]));
  return { time: columns.t[at], all: point(columns.all), models, host: point(columns.host) } as unknown as StatsPoint;
}

/** A key of certain models may not read the state of the machine. */
function forbidden(error: unknown): null {
  if (error instanceof ApiError && error.problem.status === 403) return null;
  throw error;
}

async function readStatus(): Promise<void> {
  const before = live.status?.version;
  try {
    live.status = await get<ServerStatus>('/status');
    live.statusRead = Date.now() / 1000;
  } catch {
    return; // Without permission for it, or without a server.
  }
  if (before !== undefined && before !== live.status.version) reloadOnce(live.status.version);
}

/** The files of this page belong to another version of the server. */
function reloadOnce(version: string): void {
  try {
    if (sessionStorage.getItem('xinference.reloaded') === version) return;
    sessionStorage.setItem('xinference.reloaded', version);
  } catch {
    return;
  }
  location.reload();
}
