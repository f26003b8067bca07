"""The command of an engine process and its exit: plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ProgressProbe:
    """A request that an engine answers only if its main loop runs; any status below 500 is an answer.

    It is sent with the engine's key, from time to time while the engine has requests.
    """

    path: str
    body: Mapping[str, Any] | None = None
    """The JSON body of a POST; None: a GET."""
    one_thread: bool = False
    """The engine computes with a single thread: then a single busy thread is no sign of a main loop that hangs."""
    max_in_flight: int | None = None
    """From this number of requests on, the probe may wait behind them: then bytes that arrive are an answer, too.
    None: it never waits behind requests."""


@dataclass(frozen=True)
class EngineCommand:
    """The command line and environment of one engine process.

    Every ``{port}`` in `argv` and `env` values is replaced by the loopback port that is chosen at the start.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the server's own environment; secrets belong here, never in argv."""
    cwd: Path | None = None
    answers: bool = True
    """False: a further rank of a replica on several nodes: it answers no requests, and is ready as soon as it runs."""
    health_path: str = "/health"
    """Answers 200 once the model is ready."""
    models_path: str = "/v1/models"
    """Requires the key and lists `model_name`, which proves that the started engine has the port."""
    model_name: str = ""
    api_key: str = ""
    progress: ProgressProbe | None = None
    """Shows whether the ready engine makes progress; None: nothing does."""
    extra_bytes: int | None = 0
    """Host memory that its options allow in addition to the plan; None: they set no limit."""
    cache_variables: Mapping[str, str] = field(default_factory=dict)
    """Variables with folders of compiled code that outlives the engine: the name of each in the home's folder for them.
    Engines would use a folder with a name that everybody knows, in the system's temporary folder: another user could
    make it first, and the engine would load that user's code."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Opaque JSON for a later server that adopts the engine; the keeper only stores it."""


class Fault(enum.Enum):
    """The reason for which an engine was killed."""

    HUNG = "hung"
    """By the server: it did not answer its probe."""
    MEMORY_CEILING = "memory_ceiling"
    """By its keeper: it used more memory than its ceiling."""
    KERNEL = "kernel"
    """By the kernel, because memory was exhausted."""
    NODE_LOST = "node_lost"
    """Its machine is out of reach: whether it still runs is not known."""
    NODE_LEFT = "node_left"
    """By the worker of its machine, which ends."""


@dataclass(frozen=True)
class Exit:
    """The exit of an engine."""

    code: int | None
    """Exit status, or None if a signal killed it."""
    signal: str | None
    """Name of the signal (``SIGKILL``), or None."""
    log_tail: tuple[str, ...]
    """The last 40 lines of the engine's output, oldest first."""
    ran_seconds: float
    requested: bool = False
    """Whether the server requested the stop."""
    fault: Fault | None = None
    """None: it ended by itself or was stopped, or the reason is not known."""
    detail: str = ""
    """What was measured, for a fault: the sentence "The engine …" without its subject."""

    @property
    def reason(self) -> str:
        if self.detail:
            return self.detail
        return f"was killed by {self.signal}" if self.signal else f"exited with status {self.code}"
