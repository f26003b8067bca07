"""Runs llama.cpp's own HTTP server in this process, through `xllamacpp`.

Started by path with the environment's Python; the parameters come as JSON in ``XINFERENCE_LLAMA_PARAMS``,
the key in ``XINFERENCE_ENGINE_KEY``: both stay out of the process list.

    python server.py --port 8080         serve until SIGTERM
    python server.py --describe          print the parameters this llama.cpp knows, as JSON
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Set before xllamacpp is imported, whose libgomp reads it once. A thread that waits for the other threads of its step
# sleeps after about 10 us. By default, it spins for milliseconds, on a core that other programs and engines need.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "500")

import xllamacpp

#: The groups of parameters.
GROUPS = frozenset(
    {"sampling", "cpuparams", "cpuparams_batch", "mmproj", "speculative", "speculative.draft"}
    | {f"speculative.draft.{group}" for group in ("mparams", "cpuparams", "cpuparams_batch")}
    | {f"speculative.ngram_{group}" for group in ("simple", "mod", "map_k", "map_k4v", "cache")}
)
#: Time in which llama.cpp's log thread writes the reason of a failed start, in seconds: the process exits without a
#: wait for that thread, and `xllamacpp` has no call for it.
LOG_SECONDS = 0.3
#: Members of enums that name no value.
NO_VALUES = ("_COUNT", "_MAX_VALUE")
#: The name of a model's folder of saved states, and of the file in it: see `xinference.files.state_folders`.
MODEL_FOLDER = re.compile("[0-9a-f]{16}")
STAMP = "stamp"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--describe", action="store_true")
    arguments = parser.parse_args()
    if arguments.describe:
        print(json.dumps(describe()))
        return 0
    params = json.loads(os.environ.pop("XINFERENCE_LLAMA_PARAMS"))
    return serve(arguments.port, os.environ.pop("XINFERENCE_ENGINE_KEY"), params)


def describe() -> dict[str, Any]:
    """Every parameter with its type, those of groups with a dot; and the devices that llama.cpp can use.

    `option_policy.py` decides which parameters a launch may set, and `option_values.py` reads the types.
    """
    known = dict(_described(xllamacpp.CommonParams(), ""))
    devices = [
        {"name": d["name"], "description": d["description"], "free": d["memory_free"], "total": d["memory_total"]}
        for d in xllamacpp.get_device_info()
        if "CPU" not in str(d["type"])
    ]
    return {"options": known, "devices": devices}


def serve(port: int, key: str, params: dict[str, Any]) -> int:
    """Load the model and serve until SIGTERM. If the load fails, this process exits with status 1."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    common = xllamacpp.CommonParams()
    common.hostnames = ["127.0.0.1"]
    common.port = port
    common.api_keys = [key]
    common.model_alias = {params.pop("model_alias")}
    common.model.path = params.pop("model_path")
    for name, value in params.items():
        try:
            apply(common, name, value)
        except (TypeError, ValueError, OverflowError, AssertionError) as error:
            reason = f" ({error})" if str(error) else ""
            print(f"llama.cpp does not take {value!r:.100} for --{name}{reason}", file=sys.stderr, flush=True)
            return 1
    states = hold_states(params.get("slot_save_path"))
    try:
        server = xllamacpp.Server(common)
    except (RuntimeError, ValueError) as error:
        time.sleep(LOG_SECONDS)
        print(f"llama.cpp could not start: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait(signals)
    if states is not None:
        delete_states(params["slot_save_path"], states)
    # The server's threads may be sending an answer; the process exit frees everything at once.
    sys.stdout.flush()
    os._exit(0)


def hold_states(folder: str | None) -> int | None:
    """Lock the folder of all saved states, shared, until this process ends: nobody deletes it meanwhile.

    See `xinference.process.state_root`, which this program can't import.
    """
    if not folder:
        return None
    try:
        handle = os.open(Path(folder).parent, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_SH)
    except OSError:
        return None
    return handle


def delete_states(folder: str, handle: int) -> None:
    """Delete the folder of all saved states if neither a server nor another engine uses it.

    Only folders of models in the form that Xinference gives them are deleted, and the folder itself only when it is
    empty then: somebody who starts this program by hand may name any folder, and the folder that contains it is
    theirs.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        root = Path(folder).parent
        for model in list(root.iterdir()):
            if MODEL_FOLDER.fullmatch(model.name) and not model.is_symlink() and (model / STAMP).is_file():
                _delete_files(model)
        root.rmdir()


def _delete_files(folder: Path) -> None:
    """Delete a folder that contains nothing but files."""
    with contextlib.suppress(OSError):
        for file in list(folder.iterdir()):
            file.unlink()
        folder.rmdir()


def apply(common: Any, name: str, value: Any) -> None:
    """Set one parameter: dotted names inside their group, enums by name or number."""
    target = common
    *groups, last = name.split(".")
    for group in groups:
        target = getattr(target, group)
    current = getattr(target, last)
    if isinstance(value, list) and isinstance(current, list):
        value = _filled([_member(_enum_of(name, current), item) for item in value], current)
    else:
        value = _member(type(current), value)
    setattr(target, last, value)


def _member(kind: Any, value: Any) -> Any:
    """The member of an enum by its name or number; any other value unchanged."""
    if not hasattr(kind, "__members__") or isinstance(value, kind):
        return value
    if isinstance(value, int):
        return kind(value)
    if value not in kind.__members__:
        raise ValueError(f"it accepts {', '.join(kind.__members__)}")
    return kind.__members__[value]


def _enum_of(name: str, current: list[Any]) -> Any:
    """The type of the items of a list."""
    return xllamacpp.common_speculative_type if name == "speculative.types" else type(current[0]) if current else None


def _filled(items: list[Any], current: list[Any]) -> list[Any]:
    """The items of a list whose length llama.cpp fixes: one item is for all devices, others are followed by zeros."""
    missing = len(current) - len(items)
    if missing <= 0 or not items or not isinstance(current[0], (bool, int, float)) or _is_enum(current[0]):
        return items
    filling = items[0] if len(items) == 1 and type(current[0]) is int else type(current[0])()
    return items + [filling] * missing


def _is_enum(value: Any) -> bool:
    return hasattr(type(value), "__members__")


def _described(params: object, prefix: str) -> Iterator[tuple[str, str]]:
    for name in _names(params):
        value = getattr(params, name)
        if prefix + name in GROUPS:
            yield from _described(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _kind(params, prefix + name, value)


def _kind(params: object, name: str, value: Any) -> str:
    if name == "speculative.types":
        return f"list:{_members(xllamacpp.common_speculative_type)}"
    if isinstance(value, list):
        return f"list:{type(value[0]).__name__}" if value else f"list{_kind_of_items(params, name)}"
    return _members(type(value)) if _is_enum(value) else type(value).__name__


def _kind_of_items(params: object, name: str) -> str:
    """``:str`` if the empty list takes texts."""
    try:
        setattr(params, name.rpartition(".")[2], [""])
    except (TypeError, ValueError):
        return ""
    return ":str"


def _members(kind: Any) -> str:
    members = (f"{name}={int(member.value)}" for name, member in kind.__members__.items())
    return "enum:" + "|".join(each for each in members if not each.partition("=")[0].endswith(NO_VALUES))


def _names(params: object) -> list[str]:
    return [name for name in dir(params) if not name.startswith("_") and not callable(getattr(params, name))]


if __name__ == "__main__":
    sys.exit(main())
