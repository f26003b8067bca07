"""The screen of `xinference top`: the server, the memory of its machine, and a table of its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xinference.cli import model_figures
from xinference.cli.model_figures import Rates
from xinference.cli.output import clean, size
from xinference.cli.table import table_lines

Json = dict[str, Any]
HEADER = ("UID", "Replicas", "Requests", "Tokens/s", "First token", "Planned", "Measured", "GPU", "Status")
#: The columns that a narrow terminal does not show, the first one first.
OPTIONAL = ("GPU", "Planned", "Replicas", "First token", "Tokens/s")


@dataclass(frozen=True)
class State:
    """What one screen shows."""

    url: str
    time: str
    instances: Sequence[Json]
    rates: Rates
    devices: Json
    """Empty: the key does not permit to read them."""


def screen(state: State, columns: int | None, rows: int | None = None, *, coloured: bool = False) -> list[str]:
    """The lines of the screen, at most `rows` lines of `columns` characters."""
    head = [_cut(clean(line), columns) for line in [*_summary(state), *_machine(state)]]
    if not state.instances:
        return [*head, "", "No model is launched."][:rows]
    memory = model_figures.memory_of_models(state.devices)
    models = [model_figures.with_figures(instance, state.rates.models, memory) for instance in state.instances]
    table = table_lines(HEADER, map(_row, models), columns, OPTIONAL, coloured=coloured)
    lines = [*head, "", *table]
    if rows is None or len(lines) <= rows:
        return lines
    return [*lines[: max(0, rows - 1)], f"{len(lines) - rows + 1} more lines: enlarge the terminal"][-rows:]


def _summary(state: State) -> list[str]:
    count = len(state.instances)
    parts = [state.url, state.time, f"{count} model{'' if count == 1 else 's'}"]
    if rates := state.rates.all:
        parts += [
            f"requests: {model_figures.requests_text(rates)}",
            f"{rates.get('output_tokens_per_second') or 0:.1f} tokens/s",
        ]
        if first := model_figures.first_token(rates):
            parts.append(f"first token: {first}")
    return ["  ".join(parts)]


def _machine(state: State) -> list[str]:
    if not state.devices:
        return ["Memory and GPUs: this key may not read them."]
    host, cpu = state.devices["host"], state.rates.host.get("cpu")
    load = "" if cpu is None else f", CPU {100 * cpu:.0f} %"
    lines = [f"Memory: {_used(host)}{load}"]
    return lines + [f"GPU {gpu['index']} {gpu['name']}: {_used(gpu)}{_load(gpu)}" for gpu in state.devices["gpus"]]


def _load(gpu: Json) -> str:
    """What the GPU reports of its load; an older server has none of it."""
    values = (("utilization", 100, " %"), ("temperature", 1, " °C"), ("power", 1, " W"))
    return "".join(f", {gpu[name] * factor:.0f}{unit}" for name, factor, unit in values if gpu.get(name) is not None)


def _used(device: Json) -> str:
    return f"{size(max(0, device['total'] - device['free']))} of {size(device['total'])} used"


def _row(instance: Json) -> list[Any]:
    gpus = sorted({gpu for replica in instance.get("replicas") or [] for gpu in replica.get("gpu_idx") or []})
    return [
        instance["model_uid"],
        model_figures.replicas(instance),
        model_figures.in_flight(instance),
        model_figures.tokens_per_second(instance),
        model_figures.first_token(instance[model_figures.RATES]),
        instance[model_figures.PLANNED],
        model_figures.measured_memory(instance),
        ",".join(map(str, gpus)) or None,
        instance.get("status"),
    ]


def _cut(line: str, columns: int | None) -> str:
    return line if columns is None or len(line) <= columns else f"{line[: max(0, columns - 1)]}…"
