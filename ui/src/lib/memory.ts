/** The memory of devices and its owners, as the bars and tables of pages show it. */

import type { Devices, Owner } from './api';

export interface Device {
  name: string;
  total: number;
  free: number;
  owners: Owner[];
}

/** The host's memory and that of each GPU. */
export function devicesOf(devices: Devices | null, host: string): Device[] {
  if (devices === null) return [];
  const gpus = devices.gpus.map((each) => ({ name: `GPU ${each.index} ${each.name}`, total: each.total, free: each.free, owners: each.owners }));
  return [...gpus, { name: host, total: devices.host.total, free: devices.host.free, owners: devices.host.owners }];
}

/** What the models use of a device, at most what is in use; processes may share pages. */
export function ofModels(device: Device): number {
  const sum = device.owners.reduce((total, each) => total + (each.measured ?? each.planned ?? 0), 0);
  return Math.min(sum, device.total - device.free);
}

export type Share = Omit<Owner, 'model_uid'> & { device: string };

/** What a model has on each device: planned, and measured. */
export function shares(devices: Devices | null, uid: string, host: string): Share[] {
  return devicesOf(devices, host).flatMap((device) =>
    device.owners.filter((each) => each.model_uid === uid).map((each) => ({ ...each, device: device.name })),
  );
}

export function sum(values: (number | null)[]): number | null {
  const known = values.filter((each) => each !== null);
  return known.length ? known.reduce((total, each) => total + each, 0) : null;
}
