/** What the page knows of the server, and how an event of `GET /v1/watch` changes it. */

import type { Deployment, Devices, Download, Launching, Rates, StatsPoint } from './api';
import type { ActiveRequest } from './records';

interface OfKey {
  key: string | null;
  key_id: string | null;
  total: number;
  requests: ActiveRequest[];
}

/** A list is null until the server has sent it, and stays null where the key may not follow it. */
export interface ServerState {
  deployments: Deployment[] | null;
  launches: Launching[];
  downloads: Download[] | null;
  active: OfKey[];
  stats: StatsPoint | null;
  devices: Devices | null;
}

export const NOTHING: ServerState = { deployments: null, launches: [], downloads: null, active: [], stats: null, devices: null };

/** Change the state by one event; an event of no topic of the state changes nothing. */
export function change(state: ServerState, event: string, data: Record<string, unknown>): void {
  switch (event) {
    case 'snapshot':
      state.deployments = (data.models as Deployment[] | undefined) ?? [];
      state.launches = (data.launches as Launching[] | undefined) ?? [];
      state.downloads = (data.downloads as Download[] | undefined) ?? null;
      state.active = (data.requests as OfKey[] | undefined) ?? [];
      state.stats = (data.stats as StatsPoint | null | undefined) ?? null;
      state.devices = (data.devices as Devices | null | undefined) ?? null;
      break;
    case 'model':
      state.deployments = put(state.deployments ?? [], 'model_uid', data as unknown as Deployment);
      break;
    case 'model_removed':
      state.deployments = without(state.deployments ?? [], 'model_uid', data.model_uid);
      break;
    case 'launch':
      state.launches = put(state.launches, 'model_uid', data as unknown as Launching);
      break;
    case 'launch_removed':
      state.launches = without(state.launches, 'model_uid', data.model_uid);
      break;
    case 'download':
      // A complete one is sent once more: the list has only those that are not complete.
      state.downloads = data.stage === 'ready' ? without(state.downloads ?? [], 'cache_uid', data.cache_uid) : put(state.downloads ?? [], 'cache_uid', data as unknown as Download);
      break;
    case 'download_removed':
      state.downloads = without(state.downloads ?? [], 'cache_uid', data.cache_uid);
      break;
    case 'active': {
      const entry = data as unknown as OfKey;
      state.active = entry.requests.length ? put(state.active, 'key_id', entry) : without(state.active, 'key_id', entry.key_id);
      break;
    }
    case 'stats':
      state.stats = data as unknown as StatsPoint;
      break;
    case 'devices':
      state.devices = data as unknown as Devices;
      break;
  }
}

/** The state as the snapshot that makes it. */
export function snapshot(state: ServerState): Record<string, unknown> {
  const { deployments, launches, downloads, active, stats, devices } = state;
  return { models: deployments ?? [], launches, downloads: downloads ?? undefined, requests: active, stats, devices };
}

export function ratesOf(stats: StatsPoint | null, model: string | null): Rates | null {
  return stats === null ? null : model === null ? stats.all : (stats.models[model] ?? null);
}

function put<T>(list: T[], name: keyof T, entry: T): T[] {
  const at = list.findIndex((each) => each[name] === entry[name]);
  return at < 0 ? [...list, entry] : list.with(at, entry);
}

function without<T>(list: T[], name: keyof T, value: unknown): T[] {
  return list.filter((each) => each[name] !== value);
}
