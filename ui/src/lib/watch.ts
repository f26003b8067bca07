/** Follows `GET /v1/watch`: connects again when the stream ends, and says when a proxy holds the stream back. */

import { ApiError, send, type Problem } from './api';
import { serverEvents } from './sse';

/** Milliseconds in which the first event must arrive, and at most between two signs of life: the server sends one each 15 s. */
const FIRST = 8_000;
const SILENCE = 20_000;
const LONGEST_WAIT = 10_000;

export interface Follower {
  /** An event, with its id. */
  event(name: string, data: Record<string, unknown>, id: string | null): void;
  /** The server does not answer, or refuses the stream; null once it answers again. */
  problem(problem: Problem | null): void;
  /** Whether no stream comes through, so that the page has to ask. */
  blocked(isBlocked: boolean): void;
  /** The id of the last event that the page has. */
  lastId(): string | null;
}

/** Milliseconds before the next connection: none after a stream that worked, then up to 10 s. */
export function delay(failures: number): number {
  return failures === 0 ? 0 : Math.min(LONGEST_WAIT, 500 * 2 ** (failures - 1));
}

/** Follow the server until `signal` is aborted, or the server asks for a key. */
export async function follow(follower: Follower, signal: AbortSignal): Promise<void> {
  let failures = 0;
  while (!signal.aborted) {
    const outcome = await once(follower, signal);
    if (outcome === 'key') return;
    failures = outcome === 'worked' ? 0 : failures + 1;
    // A stream that ends at once after each connection must not become a loop.
    await pause(Math.max(delay(failures), 250), signal);
  }
}

type Outcome = 'worked' | 'failed' | 'key';

async function once(follower: Follower, signal: AbortSignal): Promise<Outcome> {
  const leaving = new AbortController();
  const leave = (): void => leaving.abort();
  signal.addEventListener('abort', leave);
  let isSilent = false;
  let worked = false;
  let timer = setTimeout(silent, FIRST);
  function silent(): void {
    isSilent = true;
    leave();
  }
  function heard(): void {
    // Bytes before the first whole event prove nothing: a proxy that fills a buffer sends the first part of it, too.
    if (!worked) return;
    clearTimeout(timer);
    timer = setTimeout(silent, SILENCE);
  }
  try {
    const id = follower.lastId();
    const response = await send('/v1/watch', { signal: leaving.signal, headers: id === null ? {} : { 'last-event-id': id } });
    // Without changes since the last id, a continued stream sends nothing at first.
    if (id !== null) {
      worked = true;
      follower.problem(null);
      heard();
    }
    for await (const event of serverEvents(response, heard)) {
      if (!worked) follower.problem(null);
      worked = true;
      heard();
      follower.blocked(false);
      follower.event(event.event, JSON.parse(event.data) as Record<string, unknown>, event.id);
    }
    return worked ? 'worked' : 'failed';
  } catch (error) {
    if (signal.aborted) return 'failed';
    if (isSilent) follower.blocked(true);
    else if (error instanceof ApiError) {
      const { problem } = error;
      if (problem.status === 429) follower.blocked(true);
      else follower.problem(problem);
      if (problem.status === 401) return 'key';
    }
    // Else the connection broke; the next attempt tells why.
    return worked && !isSilent ? 'worked' : 'failed';
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', leave);
    leave();
  }
}

export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    function done(): void {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    }
    signal?.addEventListener('abort', done);
  });
}
