"""The text of a launch plan, for `launch --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xinference.cli.output import broken, size
from xinference.hosts import LOCAL_NODE

Json = dict[str, Any]

#: Source of the memory's numbers -> the words for it.
_SOURCES = {
    "file header": "computed from the header of the weights",
    "registry": "computed from the registry",
    "estimate": "a rough estimate from the size",
}
_MEMORY_PARTS = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "overhead": "overhead",
    "saved_states": "saved prompt states at most; written as prompts arrive",
    "loaded": "resident once the model is ready, including the page cache of the file",
}


def _is_shown(name: str, memory: Json) -> bool:
    return name != "saved_states" or bool(memory.get(name))


def _memory_lines(memory: Json) -> list[str]:
    """The memory of a plan with its parts."""
    if memory.get("total") is None:
        return ["not known before the download"]
    source = memory.get("source")
    return [
        f"{size(memory['total'])} in total" + (f" ({_SOURCES[source]})" if source in _SOURCES else ""),
        *(f"{size(memory.get(name))} {text}" for name, text in _MEMORY_PARTS.items() if _is_shown(name, memory)),
    ]


#: Maximum number of files that a plan shows.
_FILES_SHOWN = 6


def _file_lines(plan: Json) -> list[str]:
    """The files of a plan with their sizes, or what is known of the size of all of them."""
    files, total, source = plan.get("files") or [], plan.get("files_bytes"), plan.get("files_source")
    is_listed = bool(files) and all(file.get("size") is not None for file in files)
    lines = [f"{file['name']} ({size(file['size'])})" if is_listed else str(file["name"]) for file in files]
    hidden = len(lines) - _FILES_SHOWN
    if hidden > 1:
        lines = [*lines[:_FILES_SHOWN], f"and {hidden} more files"]
    if (is_listed and len(files) == 1) or plan.get("path"):
        return lines
    if total is None:
        return [*lines, "The hub did not report the sizes of the files."] if files or plan.get("model_id") else lines
    if source == "estimate":
        return [*lines, f"about {size(total)}, estimated: the hub did not report the sizes"]
    return [*lines, f"{size(total)} in total" + (" according to the registry" if source == "registry" else "")]


def _device_lines(plan: Json) -> str | list[str]:
    """The GPUs of each replica, with the nodes of a cluster."""
    places = plan.get("places") or []
    if all(place["node"] == LOCAL_NODE for place in places):
        return ", ".join(str(device) for device in plan.get("devices") or [])
    return [
        f"{place['node']}: {_gpus(place['devices'])} (replica {place['replica']}"
        f"{', rank ' + str(place['rank']) if place['rank'] else ''})"
        for place in places
    ]


def _gpus(indices: Sequence[int]) -> str:
    return f"GPU {', '.join(map(str, indices))}" if indices else "CPU"


def plan_text(plan: Json) -> str:
    """A launch plan as text, one fact a line: the decisions, then their reasons."""
    memory = plan.get("memory") or {}
    facts: dict[str, Any] = {
        "Model": plan.get("version"),
        "Engine": plan.get("engine"),
        "Hub": " – ".join(str(plan[key]) for key in ("hub", "model_id") if plan.get(key)),
        "Files": _file_lines(plan),
        "Path": plan.get("path"),
        "Devices": _device_lines(plan),
        "Context": f"{plan['context_length']} tokens" if plan.get("context_length") else None,
        "Slots": plan.get("slots"),
        "Threads": plan.get("threads"),
        "Memory": _memory_lines(memory),
        "Download": size(plan["download_bytes"]) if plan.get("download_bytes") else None,
        "Disk": [
            f"{size(need['needed_bytes'])} for the {need['purpose']}, {size(need['free_bytes'])} free in "
            f"{need['folder']}"
            for need in plan.get("disk") or []
        ],
        "Options": [f"{name}={value}" for name, value in (plan.get("options") or {}).items()],
        "Others": [
            f"{each['model_uid']} is loaded first, {size(each['memory_bytes'])}"
            for each in plan.get("models_of_home") or []
        ],
    }
    lines = [_title(plan)]
    for name, value in facts.items():
        values = value if isinstance(value, list) else [value] if value else []
        lines += [f"  {name + ':' if not index else '':<10}  {each}" for index, each in enumerate(values)]
    if warnings := plan.get("warnings"):
        lines += ["Warnings:", *(f"  - {warning}" for warning in warnings)]
    if reasons := plan.get("reasons"):
        lines += ["Why:", *(f"  - {reason}" for reason in reasons)]
    return broken("\n".join([*lines, *_copy_lines(plan)]))


#: The state of an earlier, equal launch -> the first line of its plan.
_TITLES = {
    "running": "{uid} is already running; the launch would return it:",
    "launching": "{uid} is already being launched; the launch would return it:",
    "unloaded": "{uid} is unloaded; the launch would load it again:",
    "failed": "{uid} has failed; the launch would start it again:",
    "stored": "{uid} is a model of this home; the server loads it at its start:",
}


def _title(plan: Json) -> str:
    return _TITLES.get(str(plan.get("found")), "Would launch {uid}:").format(uid=plan.get("model_uid"))


def _copy_lines(plan: Json) -> list[str]:
    """The plan of the copy that --new would launch, or why there can be none."""
    if copy := plan.get("plan_of_copy"):
        return ["", "With --new, a copy:", plan_text(copy)]
    if problem := plan.get("problem_of_copy"):
        hint = [f"Hint: {problem['hint']}"] if problem.get("hint") else []
        return ["", "With --new, a copy would be refused:", problem["cause"], *hint]
    return []
