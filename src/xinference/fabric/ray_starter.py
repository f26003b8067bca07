"""Runs in a task on a node of Ray: finds the worker there, or starts one outside of Ray.

Ray gets the code of this module as a value, so that a node without Xinference can say so. Only the standard library is
imported at its head. Ray ends what its tasks start, also in sessions of their own; a process that was forked twice is
no child of a task any more, and outlives its raylet.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Maximum time for a started worker to join, and for a worker that is moved to end.
JOIN_SECONDS, END_SECONDS = 45.0, 40.0
POLL_SECONDS = 0.1
#: Maximum number of workers on one machine: one for each raylet that runs there.
MAX_HOMES = 64
#: What a worker that runs knows of the supervisor's address.
ADDRESS = ("endpoint", "link_port")
PACKAGES = ("xinference", "cryptography")
_PROGRAM = "from xinference.cli.main import worker; worker()"
#: Starts its arguments as a process that is no child of its caller, and prints the pid.
_FORK = """
import os, sys
pid = os.fork()
if pid:
    print(pid, flush=True)
    os._exit(0)
os.setsid()
os.dup2(2, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""

Json = dict[str, Any]


def find_or_start(order: Json) -> Json:
    """Find the worker of this node, or start it if there is a token. Blocks for at most a minute and a half."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return _refusal(
            f"{' and '.join(missing)} can't be imported by Ray's Python there ({sys.executable}): install "
            "xinference[cluster] in it, of the same version as here"
        )
    machine = importlib.import_module("xinference.hardware.machine_id").machine_id()
    if order["not_on"] and machine == order["not_on"]:
        return _refusal("it is the machine of the supervisor, which runs models itself")
    raylet = _raylet()
    home = _claim(_base(order["home"]), raylet)
    worker = _read(home / "worker.json")
    if worker is not None and _lives(worker):
        if worker["supervisor"] != order["supervisor"]:
            return _refusal(f"a worker of another supervisor runs there (pid {worker['pid']}, home {home})")
        if all(worker[name] == order[name] for name in ADDRESS):
            return _found(home, worker, order)
        # The supervisor has moved. The engines outlive their worker for a minute, and the next one takes them over.
        _end(worker)
    if not order["token"]:
        return {"home": str(home), "was": _node_of(home, order)}
    return _start(home, order, raylet)


def _base(home: str) -> Path:
    """The folder of the node's worker. Homes may be shared by hosts: each has its own."""
    return Path(home).expanduser() if home else Path("~/.xinference/ray").expanduser() / socket.gethostname()


def _raylet() -> Json:
    """The raylet of this node: the nearest process above this one that has its name; this one, if none has."""
    pid = os.getpid()
    while (pid := int(_stat(pid)[1])) > 1:
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].rpartition(b"/")[2] == b"raylet":
            return _identity(pid)
    return _identity(os.getpid())


def _claim(base: Path, raylet: Json) -> Path:
    """The home of this raylet: the first one that no other living raylet of this machine has.

    A raylet that was started again finds the home of its machine, and the worker in it.
    """
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (base / "claims.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number in range(1, MAX_HOMES + 1):
            home = base if number == 1 else base.with_name(f"{base.name}-{number}")
            owner = _read(home / "raylet.json")
            if owner is None or owner == raylet or not _lives(owner):
                home.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(home / "raylet.json", raylet)
                return home
    raise RuntimeError(f"{MAX_HOMES} raylets run on this machine")


def _start(home: Path, order: Json, raylet: Json) -> Json:
    if order["joins_anew"]:
        shutil.rmtree(home / "cluster", ignore_errors=True)
    words = [sys.executable, "-c", _PROGRAM, "--endpoint", order["endpoint"], "--home", str(home)]
    words += ["--worker-port", str(order["worker_port"]), "--ends-with-supervisor"]
    for name, value in sorted(order["labels"].items()):
        words += ["--label", f"{name}={value}"]
    (home / "logs").mkdir(exist_ok=True)
    log = home / "logs" / "worker.log"
    with log.open("ab") as output:
        start_of_log = output.tell()
        started = subprocess.run(
            [sys.executable, "-c", _FORK, *words],
            env=_environment(raylet["pid"]) | {"XINFERENCE_JOIN_TOKEN": order["token"], "XINFERENCE_HOME": str(home)},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            timeout=END_SECONDS,
            check=True,
        )
    worker = _identity(int(started.stdout.split()[0])) | {name: order[name] for name in ("supervisor", *ADDRESS)}
    _write(home / "worker.json", worker)
    deadline = time.monotonic() + JOIN_SECONDS
    while time.monotonic() < deadline:
        if not _lives(worker):
            return _refusal(f"its worker ended at once: {_tail(log, start_of_log)}")
        found = _found(home, worker, order)
        if "refusal" not in found:
            return found | {"is_new": True}
        time.sleep(POLL_SECONDS)
    return _refusal(f"its worker has not joined within {JOIN_SECONDS:.0f} s: {_tail(log, start_of_log)}")


def _environment(raylet: int) -> dict[str, str]:
    """That with which the raylet was started. Ray changes it for tasks: it hides the GPUs, and allows one thread."""
    try:
        lines = Path(f"/proc/{raylet}/environ").read_bytes().split(b"\0")
    except OSError:
        lines = [os.fsencode(f"{name}={value}") for name, value in os.environ.items()]
    found = dict(os.fsdecode(line).split("=", 1) for line in lines if b"=" in line)
    return {name: value for name, value in found.items() if not name.startswith(("RAY_", "XINFERENCE_JOIN_TOKEN"))}


def _found(home: Path, worker: Json, order: Json) -> Json:
    node_id = _node_of(home, order)
    if not node_id:
        return _refusal("its worker has not joined yet")
    return {"node_id": node_id, "pid": worker["pid"], "home": str(home)}


def _node_of(home: Path, order: Json) -> str:
    """The node that the worker of this home is for the supervisor of the order; empty: none."""
    membership = _read(home / "cluster" / "membership.json")
    if membership is None or membership["supervisor"] != order["supervisor"]:
        return ""
    return str(membership["node_id"])


def _end(worker: Json) -> None:
    """End a worker without its engines."""
    _signal(worker, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while _lives(worker) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _signal(worker, signal.SIGKILL)


def _signal(process: Json, number: signal.Signals) -> None:
    if _lives(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], number)


def _tail(log: Path, position: int) -> str:
    with log.open("rb") as file:
        file.seek(position)
        lines = file.read(64 * 1024).decode("utf-8", "replace").strip().splitlines()
    return " ".join(line.strip() for line in lines[-4:])[-600:] or f"see {log}"


def _refusal(text: str) -> Json:
    return {"refusal": text}


# -- processes, by pid and time of their start: a pid is given again --------------------------------------------


def _identity(pid: int) -> Json:
    return {"pid": pid, "started": _stat(pid)[19]}


def _lives(process: Json) -> bool:
    try:
        stat = _stat(process["pid"])
    except OSError:
        return False
    return stat[0] != "Z" and stat[19] == process["started"]


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name: state, parent, ...; the 20th is the time of the start."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _read(file: Path) -> Json | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write(file: Path, value: Json) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    temporary.replace(file)
