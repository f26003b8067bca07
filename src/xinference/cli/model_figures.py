"""The figures of a model in tables: its current rates, its replicas and its memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xinference.cli.output import size
from xinference.client.client import Client
from xinference.errors import Problem

Json = dict[str, Any]
Values = Mapping[str, float | None]

#: The entries of an instance with its newest rates, and with the memory of all replicas as texts or None.
RATES, PLANNED, MEASURED = "rates", "planned", "measured"
#: Rates that are older than this are not those of now.
RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class Rates:
    """The newest rates; empty if the server has none of the last minute, or does not permit the key to read them."""

    all: Values = field(default_factory=dict)
    models: Mapping[str, Values] = field(default_factory=dict)
    host: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """The memory of a model on the host and on GPUs as texts; None: not known."""

    planned: str | None = None
    measured: str | None = None


def newest_rates(client: Client) -> Rates:
    """The newest rates of the server, and of each model."""
    try:
        stats = client.stats(step=2, since=max(0.0, time.time() - RECENT_SECONDS))
    except Problem:
        return Rates()
    if not stats.get("t") or time.time() - stats["t"][-1] > RECENT_SECONDS:
        return Rates()
    models = {uid: _last(series) for uid, series in stats.get("models", {}).items()}
    return Rates(_last(stats.get("all", {})), models, _last(stats.get("host", {})))


def _last(series: Mapping[str, list[float | None]]) -> Values:
    return {name: values[-1] for name, values in series.items() if values}


def devices_of(client: Client) -> Json:
    """The machine and the owners of its memory; empty if the key does not permit to read them."""
    try:
        return client.devices()
    except Problem:
        return {}


def memory_of_models(devices: Json) -> dict[str, Memory]:
    """The memory of each model: that of all its replicas, on every machine."""
    machines = [devices, *devices.get("workers", [])] if devices else []
    hosts = [owner for machine in machines if machine.get("host") for owner in machine["host"]["owners"]]
    gpus = [owner for machine in machines for gpu in machine.get("gpus", []) for owner in gpu["owners"]]
    uids = {str(owner["model_uid"]) for owner in (*hosts, *gpus)}
    sums = {name: (_sums(hosts, name), _sums(gpus, name)) for name in ("planned", "measured")}
    return {
        uid: Memory(*(sizes(each.get(uid) for each in sums[name]) for name in ("planned", "measured"))) for uid in uids
    }


def _sums(owners: Iterable[Json], name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for owner in owners:
        counts[owner["model_uid"]] = counts.get(owner["model_uid"], 0) + (owner.get(name) or 0)
    return counts


def with_figures(instance: Json, rates: Mapping[str, Values], memory: Mapping[str, Memory]) -> Json:
    """The instance with its newest rates and its memory."""
    uid = instance["model_uid"]
    return with_memory(instance, memory) | {RATES: rates.get(uid, {})}


def with_memory(instance: Json, memory: Mapping[str, Memory]) -> Json:
    """The instance with its memory."""
    found = memory.get(instance["model_uid"], Memory())
    return instance | {PLANNED: found.planned, MEASURED: found.measured}


def in_flight(instance: Json) -> str | None:
    """The requests at the model now, and those that wait."""
    rates = instance[RATES]
    return requests_text(rates) if rates else None


def requests_text(rates: Values) -> str:
    """The requests at work, and those that wait if there are any."""
    waiting = int(rates.get("waiting") or 0)
    return f"{int(rates.get('in_flight') or 0)}{f' + {waiting} waiting' if waiting else ''}"


def tokens_per_second(instance: Json) -> str | None:
    """The output tokens per second of now."""
    rates = instance[RATES]
    return f"{rates['output_tokens_per_second']:.1f}" if rates else None


def first_token(rates: Values) -> str | None:
    """The median of the times to the first token; None: no stream has begun of late."""
    seconds = rates.get("first_token_p50")
    if seconds is None:
        return None
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def measured_memory(instance: Json) -> str | None:
    """The bytes that the processes of a model use on the host, and on GPUs.

    A key that may not read the devices gets those of the newest replica.
    """
    return instance.get(MEASURED) or sizes((instance.get("memory_used_bytes"), instance.get("gpu_memory_used_bytes")))


def sizes(counts: Iterable[int | None]) -> str | None:
    """These bytes, without those that are 0 or not known; from 100 on without a fraction, to fit 80 columns."""
    return " + ".join(re.sub(r"(?<=\d{3})\.\d", "", size(count)) for count in counts if count) or None


def replicas(instance: Json) -> str | None:
    """The number of ready replicas, and of all if some are not ready."""
    found = instance.get("replicas") or []
    ready = sum(replica.get("status") == "READY" for replica in found)
    if not found:
        return None if instance.get("replica") is None else str(instance["replica"])
    return str(ready) if ready == len(found) else f"{ready}/{len(found)}"
