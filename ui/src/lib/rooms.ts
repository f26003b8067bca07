/** The devices on which a plan places a model, as the bars of the plan show them. */

import type { Devices, Gpu, Host, Plan, PlannedPlace } from './api';
import { named, shareOf } from './memory';

export interface Room {
  name: string;
  total: number;
  used: number;
  /** How many times the engine's memory of one place is on this device; a part of it where several GPUs have one place. */
  share: number;
  /** How many times the saved states of one place are in this memory. */
  states: number;
}

interface Machine {
  node: string;
  name: string;
  host: Host | null;
  gpus: Gpu[];
}

/** The GPUs or the host's memory of each machine of a plan; `host` is the name of that memory. */
export function roomsOf(plan: Plan, devices: Devices | null, host: string): Room[] {
  if (devices === null) return [];
  const here: Machine = { node: devices.node, name: '', host: devices.host, gpus: devices.gpus };
  const machines = [here, ...(devices.workers ?? [])];
  // A plan without places yet is for this machine, where it is the only one.
  if (!plan.places.length) return machines.length > 1 ? [] : hostRoom(here, host, 0, 0);
  return machines.flatMap((machine) => {
    const own = plan.places.filter((place) => place.node === machine.node);
    return own.length ? roomsOn(machine, own, host, (plan.memory?.saved_states ?? 0) > 0) : [];
  });
}

function roomsOn(machine: Machine, places: PlannedPlace[], host: string, hasStates: boolean): Room[] {
  const groups = places.map((place) => place.devices).filter((group) => group.length);
  const onHost = places.length - groups.length;
  const gpus = groups.length
    ? machine.gpus.map((each) => ({
        ...{ name: named(machine.name, `GPU ${each.index} ${each.name}`), total: each.total, used: each.total - each.free },
        ...{ share: shareOf(groups, each.index), states: 0 },
      }))
    : [];
  // Saved states are in the host's memory, also those of a model on GPUs.
  return onHost || hasStates ? [...gpus, ...hostRoom(machine, host, onHost, hasStates ? places.length : 0)] : gpus;
}

function hostRoom(machine: Machine, host: string, share: number, states: number): Room[] {
  if (machine.host === null) return [];
  const { total, free } = machine.host;
  return [{ name: named(machine.name, host), total, used: total - free, share, states }];
}
