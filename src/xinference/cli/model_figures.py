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

#: The entries of an instance with its newest rates, and with its planned memory as a text or None.
RATES, PLANNED = "rates", "planned"
#: Rates that are older than this are not those of now.
RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class Rates:
    """The newest rates; empty if the server has none of the last minute, or does not permit the key to read them."""

    all: Values = field(default_factory=dict)
    models: Mapping[str, Values] = field(default_factory=dict)
    host: Values = field(default_factory=dict)


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


def planned_memory(devices: Json) -> dict[str, str | None]:
    """The planned bytes of each model as a text: those on the host, and those on the GPUs."""
    host = _planned([devices["host"]] if devices else [])
    gpus = _planned(devices.get("gpus", []))
    return {uid: sizes((host.get(uid), gpus.get(uid))) for uid in {*host, *gpus}}


def _planned(devices: Iterable[Json]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for owner in (owner for device in devices for owner in device["owners"]):
        counts[owner["model_uid"]] = counts.get(owner["model_uid"], 0) + (owner["planned"] or 0)
    return counts


def with_figures(instance: Json, rates: Mapping[str, Values], planned: Mapping[str, str | None]) -> Json:
    """The instance with its newest rates and its planned memory."""
    uid = instance["model_uid"]
    return instance | {RATES: rates.get(uid, {}), PLANNED: planned.get(uid)}


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
    """The bytes that the processes of a model use on the host, and on GPUs."""
    return sizes((instance.get("memory_used_bytes"), instance.get("gpu_memory_used_bytes")))


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
