/** The memory of devices and its owners, as the bars and tables of pages show it. */

import type { Devices, Disk, Gpu, Host, Owner } from './api';

export interface Device {
  name: string;
  total: number;
  free: number;
  owners: Owner[];
}

/** The memory of each GPU and of the host, of this machine and then of each worker. */
export function devicesOf(devices: Devices | null, host: string): Device[] {
  if (devices === null) return [];
  return machinesOf(devices).flatMap((each) => [
    ...each.gpus.map(({ index, name, total, free, owners }) => ({ name: named(each.name, `GPU ${index} ${name}`), total, free, owners })),
    ...(each.host ? [{ name: named(each.name, host), total: each.host.total, free: each.host.free, owners: each.host.owners }] : []),
  ]);
}

/** The disks of all machines, with the name of a worker's machine. */
export function disksOf(devices: Devices | null): (Disk & { machine: string })[] {
  if (devices === null) return [];
  return machinesOf(devices).flatMap((each) => each.disks.map((disk) => ({ ...disk, machine: each.name })));
}

function machinesOf(devices: Devices): { name: string; host: Host | null; gpus: Gpu[]; disks: Disk[] }[] {
  return [{ ...devices, name: '' }, ...(devices.workers ?? [])];
}

export function named(machine: string, of: string): string {
  return [machine, of].filter(Boolean).join(': ');
}

/** The part of one replica's memory that all replicas of a plan have on a GPU; `groups` are the GPUs of each replica. */
export function shareOf(groups: number[][], index: number): number {
  return groups.reduce((total, group) => total + (group.includes(index) ? 1 / group.length : 0), 0);
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

/** Names with their number where a name occurs more than once: `8 × H200`. */
export function counted(names: string[]): string {
  return [...new Set(names)].map((name) => [names.filter((each) => each === name).length, name] as const).map(([n, name]) => (n > 1 ? `${n} × ${name}` : name)).join(', ');
}

export function sum(values: (number | null)[]): number | null {
  const known = values.filter((each) => each !== null);
  return known.length ? known.reduce((total, each) => total + each, 0) : null;
}
