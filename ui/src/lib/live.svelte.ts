/** What the server has now, asked again every few seconds while the page is visible. */

import { onMount } from 'svelte';
import { ApiError, get, type Deployment, type Problem, type ServerStatus } from './api';

const SECONDS = 3;

export const live = $state<{
  deployments: Deployment[] | null;
  status: ServerStatus | null;
  problem: Problem | null;
}>({ deployments: null, status: null, problem: null });

let timer: ReturnType<typeof setTimeout> | undefined;

async function look(): Promise<void> {
  try {
    const [deployments, status] = await Promise.all([
      get<Deployment[]>('/v1/models/instances'),
      get<ServerStatus>('/status').catch(ignoreForbidden),
    ]);
    live.deployments = deployments;
    live.status = status;
    live.problem = null;
  } catch (error) {
    live.problem = error instanceof ApiError ? error.problem : null;
  }
}

/** A key of certain models may not read the state of the machine. */
function ignoreForbidden(error: unknown): null {
  if (error instanceof ApiError && error.problem.status === 403) return null;
  throw error;
}

async function turn(): Promise<void> {
  if (!document.hidden) await look();
  // Without a key there is nothing to see until the user has logged in.
  if (live.problem?.status === 401) return;
  timer = setTimeout(() => void turn(), SECONDS * 1000);
}

/** Ask now, and from now on every few seconds. */
export function refresh(): void {
  clearTimeout(timer);
  void turn();
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden && live.problem?.status !== 401) refresh();
});

/** Do something now and again after each `milliseconds`, while the component and the page are visible. */
export function every(milliseconds: number, what: () => Promise<void>): void {
  onMount(() => {
    let waiting: ReturnType<typeof setTimeout>;
    let left = false;
    const again = async (): Promise<void> => {
      if (!document.hidden) await what();
      if (!left) waiting = setTimeout(() => void again(), milliseconds);
    };
    void again();
    return () => {
      left = true;
      clearTimeout(waiting);
    };
  });
}
