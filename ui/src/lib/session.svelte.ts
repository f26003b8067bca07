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

export const session = $state<{ holder: Holder | null }>({ holder: null });

/** Log in with a key, or with a code that the server gave to `xinference web`. */
export async function begin(login: { key: string } | { code: string }): Promise<void> {
  session.holder = await post<Holder>('/v1/sessions', login);
}

export async function end(): Promise<void> {
  await remove('/v1/sessions/current');
  session.holder = null;
}

export async function readHolder(): Promise<void> {
  try {
    session.holder = await get<Holder>('/v1/sessions/current');
  } catch {
    session.holder = null;
  }
}

/** Exchange the code in the page's address, which leaves the address at once, so that no history has it; whether there was one. */
export async function redeemCode(): Promise<boolean> {
  const code = codeOf(location.hash);
  if (code === null) return false;
  history.replaceState(null, '', '#/');
  dispatchEvent(new HashChangeEvent('hashchange'));
  try {
    await begin({ code });
  } catch (error) {
    // The page asks for a key where the server needs one.
    if (!(error instanceof ApiError)) throw error;
  }
  return true;
}

export function codeOf(hash: string): string | null {
  return /^#code=([\w-]+)$/.exec(hash)?.[1] ?? null;
}

/** Whether the holder has a scope; true until it is known. */
export function may(scope: string): boolean {
  return session.holder?.scopes.includes(scope) ?? true;
}
