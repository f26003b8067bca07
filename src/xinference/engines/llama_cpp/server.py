"""Runs llama.cpp's own HTTP server in this process, through `xllamacpp`.

Started by path with the environment's Python; the parameters come as JSON in ``XINFERENCE_LLAMA_PARAMS``,
the key in ``XINFERENCE_ENGINE_KEY``: both stay out of the process list.

    python server.py --port 8080         serve until SIGTERM
    python server.py --describe          print the parameters this llama.cpp knows, as JSON
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

import xllamacpp

NESTED = ("sampling", "cpuparams", "cpuparams_batch", "speculative", "mmproj")


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
    """Every parameter with its type's name, nested ones with a dot; and the devices that llama.cpp can use.

    `option_policy.py` decides which parameters a launch may set.
    """
    known: dict[str, str] = {}
    params = xllamacpp.CommonParams()
    for name in _names(params):
        value = getattr(params, name)
        if name in NESTED:
            known.update({f"{name}.{inner}": type(getattr(value, inner)).__name__ for inner in _names(value)})
        else:
            known[name] = type(value).__name__
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
        apply(common, name, value)
    try:
        server = xllamacpp.Server(common)
    except (RuntimeError, ValueError) as error:
        print(f"llama.cpp could not start: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait(signals)
    # The server's threads may be sending an answer; the process exit frees everything at once.
    sys.stdout.flush()
    os._exit(0)


def apply(common: Any, name: str, value: Any) -> None:
    """Set one parameter: dotted names inside their group, enums by name or number."""
    target = common
    *groups, last = name.split(".")
    for group in groups:
        target = getattr(target, group)
    current = getattr(target, last)
    if hasattr(type(current), "__members__"):
        value = _enum(type(current), value)
    setattr(target, last, value)


def _enum(kind: Any, value: Any) -> Any:
    if isinstance(value, int):
        return kind(value)
    wanted = str(value).upper()
    matches = [member for name, member in kind.__members__.items() if name == wanted or name.endswith(f"_{wanted}")]
    if len(matches) != 1:
        raise SystemExit(f"{value!r} is not one of {', '.join(kind.__members__)}")
    return matches[0]


def _names(params: object) -> list[str]:
    return [name for name in dir(params) if not name.startswith("_") and not callable(getattr(params, name))]


if __name__ == "__main__":
    sys.exit(main())
