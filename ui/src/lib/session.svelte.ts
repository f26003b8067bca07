/** Who uses the page: the session of this browser, which the server keeps as a cookie that no script can read. */

import { ApiError, get, post, remove } from './api';

export interface Holder {
  id: string | null;
  name: string | null;
  scopes: string[];
  models: string[] | null;
  expires: number | null;
  is_session: boolean;
  needs_key: boolean;
}

interface Session {
  holder: Holder | null;
  /** Where the user has logged out; null: nowhere. */
  loggedOut: 'here' | 'elsewhere' | null;
  /** Whether the code of the address was used before or has expired. */
  hadOldCode: boolean;
  /** The name of the other key with which another tab has logged in, until its notice is closed. */
  taken: string | null;
  /** Whether this tab makes the first key and logs in with it: refusals until then ask for no key. */
  isBeginning: boolean;
  /** Grows when another tab logs in with another key: what a page has read before is that key's. */
  turn: number;
}

export const session = $state<Session>({ holder: null, loggedOut: null, hadOldCode: false, taken: null, isBeginning: false, turn: 0 });
let tabs: BroadcastChannel | null = null;
/** The id of the last key that this tab has shown something of; undefined: of none yet. */
let shown: string | null | undefined;

/** Log in with a key, or with a code that the server gave to `xinference web`. */
export async function begin(login: { key: string } | { code: string }): Promise<void> {
  hold(await post<Holder>('/v1/sessions', login));
  Object.assign(session, { loggedOut: null, hadOldCode: false, taken: null });
  tabs?.postMessage('begin');
}

export async function end(): Promise<void> {
  await remove('/v1/sessions/current');
  holds += 1;
  session.holder = null;
  session.loggedOut = 'here';
  tabs?.postMessage('end');
}

export async function readHolder(): Promise<void> {
  const before = holds;
  let holder: Holder | null = null;
  try {
    holder = await get<Holder>('/v1/sessions/current');
  } catch {
    // Without a session, or without a server.
  }
  if (holds !== before) return; // a log-in or a log-out since then knows better
  if (holder) hold(holder);
  else session.holder = null;
}

/** Counts the log-ins and log-outs of this tab. */
let holds = 0;

function hold(holder: Holder): void {
  holds += 1;
  session.holder = holder;
  shown = holder.id;
}

/** Follow the log-ins and log-outs of the browser's other tabs, which share the cookie; `changed` is called at each. */
export function hearTabs(changed: () => void): void {
  if (typeof BroadcastChannel !== 'function') return;
  tabs = new BroadcastChannel(`xinference-session ${location.pathname}`);
  tabs.addEventListener('message', (event) => {
    session.loggedOut = event.data === 'end' ? 'elsewhere' : null;
    session.taken = null;
    if (event.data === 'begin') void takeOver();
    changed();
  });
}

async function takeOver(): Promise<void> {
  const before = shown;
  await readHolder();
  if (before === undefined || session.holder === null || session.holder.id === before) return;
  session.taken = session.holder.name;
  session.turn += 1;
}

/** Exchange the code in the page's address, which leaves the address at once, so that no history has it. */
export async function redeemCode(): Promise<void> {
  const code = codeOf(location.hash);
  if (code === null) return;
  history.replaceState(null, '', '#/');
  dispatchEvent(new HashChangeEvent('hashchange'));
  try {
    await begin({ code });
  } catch (error) {
    // The page asks for a key where the server needs one.
    if (!(error instanceof ApiError)) throw error;
    session.hadOldCode = error.problem.code === 'wrong_login';
  }
}

export function codeOf(hash: string): string | null {
  return /^#code=([\w-]+)$/.exec(hash)?.[1] ?? null;
}

/** Whether the holder has a scope; true until it is known. */
export function may(scope: string): boolean {
  return session.holder?.scopes.includes(scope) ?? true;
}
