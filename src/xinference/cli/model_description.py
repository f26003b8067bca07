"""The text of one model for `xinference describe`: facts by name, and the lines to type."""

from __future__ import annotations

import json
import shutil
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import Any

from xinference.cli import model_figures, replica_nodes
from xinference.cli.output import clean, duration, number_of_billions, size, size_in_billions

Json = dict[str, Any]
_NAME_WIDTH = 13
#: Model type -> the request of an example: the path below ``/v1``, and the body without the model.
_EXAMPLES: Mapping[str, tuple[str, Json]] = {
    "LLM": ("chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]}),
    "embedding": ("embeddings", {"input": "Hello!"}),
    "rerank": ("rerank", {"query": "Hello!", "documents": ["Hi", "Bye"]}),
}
#: Maximum number of quantizations that one line names.
_QUANTIZATIONS_SHOWN = 4


def instance_text(instance: Json) -> str:
    """A launched model: its state, resources, replicas and limits, and how to send it requests."""
    uid = str(instance["model_uid"])
    problem = instance.get("problem") or {}
    created = instance.get("instance_created_ts")
    age = f", launched {duration(max(0.0, time.time() - created))} ago" if created else ""
    version = [instance.get("model_name"), size_in_billions(instance.get("model_size_in_billions")),
        instance.get("model_format"), _unless_none(instance.get("quantization"))]  # fmt: skip
    facts: dict[str, Any] = {
        "State": f"{instance.get('status')}{age}",
        "Problem": problem.get("cause"),
        "Hint": problem.get("hint"),
        "Aliases": _joined(instance.get("aliases")),
        "Type": instance.get("model_type"),
        "Model": " ".join(str(part) for part in version if part),
        "Weights": _weights(instance),
        "Abilities": _joined(instance.get("model_ability")),
        "Engine": instance.get("model_engine"),
        "Options": [f"--{name} {value}" for name, value in (instance.get("engine_options") or {}).items()],
        "Context": _context(instance),
        "Dimensions": instance.get("dimensions"),
        "Limits": _limits(instance),
        "Memory": _memory(instance),
        "Unloading": unloading(instance),
        "Adapters": _joined(instance.get("adapters")),
        "Replicas": [_replica(replica) for replica in instance.get("replicas") or ()],
    }
    return "\n".join([*_fact_lines(f"{uid} (launched)", facts), *_lines_of_use(instance)])


def family_text(family: Json) -> str:
    """A registered model: its abilities, sizes, formats and origin, and how to launch it."""
    name = str(family["model_name"])
    specs = family.get("model_specs") or []
    origin = "built-in" if family.get("is_builtin") else "custom"
    facts = {
        "Type": f"{family.get('model_type')}, {origin}",
        "Problem": (family.get("problem") or {}).get("cause"),
        "Description": family.get("model_description") or None,
        "Abilities": _joined(family.get("model_ability")),
        "Languages": _joined(family.get("model_lang") or family.get("language")),
        "Context": f"{family['context_length']} tokens" if family.get("context_length") else None,
        "Dimensions": family.get("dimensions"),
        "Versions": _versions(specs),
        "Weights": _repositories(specs),
        "License": "not in the registry; the model's repository names it" if specs else None,
    }
    commands = {
        f"xinference engine {quote(name)}": "show the versions for this machine",
        f"xinference launch {quote(name)}": "launch the preferred one",
    }
    width = max(map(len, commands)) + 3
    lines = [f"  {command:<{width}}{purpose}" for command, purpose in commands.items()]
    if max(map(len, lines)) > shutil.get_terminal_size().columns:
        lines = [f"  {command}" for command in commands]
    return "\n".join([*_fact_lines(f"{name} (registered)", facts), "", "Launch it:", *lines])


def _fact_lines(title: str, facts: Mapping[str, Any]) -> list[str]:
    """One line for each value of each fact; facts without a value are left out."""
    lines = [clean(title)]
    for name, value in facts.items():
        values = value if isinstance(value, list) else [] if value in (None, "") else [value]
        for number, each in enumerate(values):
            label = f"{name}:" if number == 0 else ""
            lines += _wrapped(clean(str(each)), f"  {label:<{_NAME_WIDTH}}")
    return lines


def _wrapped(text: str, beginning: str) -> list[str]:
    """The text in lines as long as the terminal at most; all begin in the column in which the first one begins."""
    width, indent = shutil.get_terminal_size().columns, " " * len(beginning)
    return textwrap.wrap(text, width, initial_indent=beginning, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _lines_of_use(instance: Json) -> list[str]:
    uid, url = str(instance["model_uid"]), str(instance.get("url") or "").rstrip("/")
    kind = str(instance.get("model_type") or "LLM")
    if kind not in _EXAMPLES or not url:
        return []
    if instance.get("status") == "ERROR":
        return ["", "Next:", f"  xinference logs {quote(uid)}", f"  xinference load {quote(uid)}"]
    path, body = _EXAMPLES[kind]
    headers = ["content-type: application/json"]
    if instance.get("needs_key"):
        headers.append("authorization: Bearer YOUR_KEY")
    talks = "chat" if "chat" in (instance.get("model_ability") or ()) else "generate"
    if kind == "LLM" and talks == "generate":
        path, body = "completions", {"prompt": "Once upon a time"}
    return [
        "",
        "Use it:",
        *([f"  xinference {talks} {quote(uid)}"] if kind == "LLM" else []),
        f"  curl {quote(f'{url}/v1/{path}')} \\",
        *(f"    -H {quote(header)} \\" for header in headers),
        f"    -d {quote(_body(uid, body))}",
    ]


def _body(uid: str, fields: Json) -> str:
    """The body of an example, broken after the model, so that it fits the terminal."""
    rest = json.dumps(fields, ensure_ascii=False)
    return f'{{"model": {json.dumps(uid, ensure_ascii=False)},\n         {rest.removeprefix("{")}'


def _joined(values: Sequence[Any] | None) -> str | None:
    return ", ".join(map(str, values)) if values else None


def _unless_none(quantization: Any) -> Any:
    return None if quantization == "none" else quantization


def _weights(instance: Json) -> str | None:
    hub, revision = instance.get("model_hub"), instance.get("revision")
    return f"{hub}{f', revision {revision}' if revision else ''}" if hub else None


def _context(instance: Json) -> str | None:
    context, slots = instance.get("context_length"), instance.get("slots")
    if not context:
        return None
    each = f", in each of {slots} slots" if slots and slots > 1 else ", in 1 slot" if slots else ""
    return f"{context} tokens for a prompt and its answer{each}"


def _limits(instance: Json) -> str | None:
    limits = {
        "max_output_tokens": "output tokens in an answer",
        "max_request_seconds": "seconds for a request",
        "request_limits": "requests at the same time",
    }
    values = [f"{instance[name]:g} {unit}" for name, unit in limits.items() if instance.get(name)]
    return _joined(values)


def _memory(instance: Json) -> str | None:
    used, planned = model_figures.measured_memory(instance), instance.get(model_figures.PLANNED)
    if planned is None and instance.get("planned_memory_bytes"):
        planned = f"{size(instance['planned_memory_bytes'])} for each replica"
    return _joined(
        [text for text in (f"{used} used" if used else None, f"{planned} planned" if planned else None) if text]
    )


def unloading(instance: Json) -> str | None:
    """When the server unloads an on-demand model; None: it is not on demand."""
    if not instance.get("on_demand"):
        return None
    ttl = instance.get("ttl")
    idle = f"unloaded after {duration(float(ttl))} without a request" if ttl else None
    if instance.get("pin"):
        return "on demand: " + ", ".join(text for text in ("never unloaded for another model", idle) if text)
    when = idle or "unloaded when another model needs the memory"
    return f"on demand: {when}, priority {instance.get('priority', 0)}"


def _replica(replica: Json) -> str:
    parts = [
        f"{replica.get('replica_id')}: {replica.get('status')}",
        str(replica["address"]).removeprefix("http://") if replica.get("address") else None,
        f"engine pid {replica['engine_pid']}" if replica.get("engine_pid") else None,
        f"keeper pid {replica['keeper_pid']}" if replica.get("keeper_pid") else None,
        f"GPU {_joined(replica['gpu_idx'])}" if replica.get("gpu_idx") else None,
        replica_nodes.place_text(replica),
        replica.get("error_message"),
    ]
    return ", ".join(str(part) for part in parts if part)


def _versions(specs: Iterable[Json]) -> list[str]:
    """One line for each format: its sizes, and the first of its quantizations."""
    sizes: dict[str, list[str]] = {}
    quantizations: dict[str, list[str]] = {}
    for spec in sorted(specs, key=lambda spec: number_of_billions(spec.get("model_size_in_billions"))):
        sizes.setdefault(spec["model_format"], []).append(str(size_in_billions(spec["model_size_in_billions"])))
        quantizations.setdefault(spec["model_format"], []).extend(map(str, spec["quantizations"]))
    return [f"{name}: {', '.join(dict.fromkeys(sizes[name]))}{_quantizations(quantizations[name])}" for name in sizes]


def _quantizations(names: Sequence[str]) -> str:
    names = [name for name in dict.fromkeys(names) if name != "none"]
    more = len(names) - _QUANTIZATIONS_SHOWN
    shown = ", ".join(names[:_QUANTIZATIONS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f" ({shown})" if names else ""


def _repositories(specs: Iterable[Json]) -> list[str]:
    """One line for each hub: its first repository, and the number of the others."""
    found: dict[str, list[str]] = {}
    for source in (source for spec in specs for source in spec.get("sources") or ()):
        if source.get("model_id"):
            found.setdefault(str(source.get("hub")), []).append(str(source["model_id"]))
    lines = []
    for hub, names in found.items():
        different = list(dict.fromkeys(names))
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        lines.append(f"{different[0]}{more} ({hub})")
    return lines
