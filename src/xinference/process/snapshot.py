"""Immutable snapshots of a replica for readers."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xinference.hosts import LOCAL_NODE
from xinference.process.command import Exit, Fault
from xinference.process.node_log import EngineLog, NodeLog
from xinference.process.probe import Endpoint
from xinference.units import MIB


class ReplicaState(enum.Enum):
    """NEW (no keeper yet), STARTING (the engine does not answer yet), READY, STOPPING, EXITED (no process left)."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    EXITED = "exited"


@dataclass(frozen=True)
class ReplicaSnapshot:
    """A replica at one moment."""

    replica_id: str
    state: ReplicaState
    port: int
    base_url: str
    api_key: str = field(repr=False)
    context: Mapping[str, Any] = field(repr=False)
    """The context of the command, for a server that adopts the engine."""
    log_path: Path
    keeper_pid: int | None = None
    engine_pid: int | None = None
    started_at: float | None = None
    """The start of the engine, in seconds since the epoch."""
    exit: Exit | None = None
    fault: Fault | None = None
    """The reason for which the engine is being killed."""
    node_id: str = LOCAL_NODE
    """The node on which it runs."""

    @property
    def log(self) -> EngineLog:
        """The place of its log."""
        return self.log_path if self.node_id == LOCAL_NODE else NodeLog(self.node_id, self.log_path)


def new_snapshot(replica_id: str, endpoint: Endpoint, context: Mapping[str, Any], log_path: Path) -> ReplicaSnapshot:
    """A replica before its start."""
    return ReplicaSnapshot(
        replica_id=replica_id,
        state=ReplicaState.NEW,
        port=endpoint.port,
        base_url=endpoint.base_url,
        api_key=endpoint.api_key,
        context=context,
        log_path=log_path,
    )


def exit_from(message: Mapping[str, Any]) -> Exit:
    """Parse the keeper's JSON form of an exit; a keeper of an earlier release reports no memory."""
    exit = Exit(
        message["code"], message["signal"], tuple(message["log_tail"]), message["ran_seconds"], message["asked_for"]
    )
    if (excess := message.get("memory_excess")) is not None:
        ceiling = message["memory_ceiling"]
        detail = f"used {excess // MIB:,} MiB of memory, more than its ceiling of {ceiling // MIB:,} MiB, and was ended"
        return dataclasses.replace(exit, fault=Fault.MEMORY_CEILING, detail=detail)
    return dataclasses.replace(exit, fault=Fault.KERNEL) if message.get("oom_killed") else exit
