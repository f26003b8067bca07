"""The command lines and the environment with which Ray's processes of a node are started.

Ray 2.60. All ports are fixed and lie below 32768, where Linux begins to give ports to clients: ports that Ray chooses
itself may be in use at that moment. Ray ends what it starts, so nothing of ours is its child.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xinference.fabric.ray_relay import SOCKET_VARIABLE

#: Bytes of the object store, which is not used: Ray's minimum is 75 MiB.
OBJECT_STORE_BYTES = 80_000_000
NODE_RESOURCE = "xinference_node_"
#: How Ray's head finds a lost node: with these, a killed raylet is known in 3 s and a pulled cable in 7 s.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "3",
    # A head that is started again within this time finds its nodes alive.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class RayPorts:
    """The ports of Ray on one node."""

    head: int = 10200
    """Of the head's control store; only the head listens there."""
    node_manager: int = 10201
    object_manager: int = 10202
    metrics_agent: int = 10203
    agent_listen: int = 10204
    agent_grpc: int = 10205
    worker_min: int = 10210
    """The relay and the bridge have a port each in this range."""
    worker_max: int = 10229


@dataclass(frozen=True)
class RaySecurity:
    """What Ray's processes and drivers of a cluster need to talk to each other."""

    token: str = ""
    """Ray's own token; empty: none, for tests on one machine."""
    key: Path | None = None
    certificate: Path | None = None
    authority: Path | None = None

    def environment(self) -> dict[str, str]:
        """The variables that Ray reads."""
        found: dict[str, str] = {}
        if self.token:
            found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        if self.key is not None:
            found |= {
                "RAY_USE_TLS": "1",
                "RAY_TLS_SERVER_KEY": str(self.key),
                "RAY_TLS_SERVER_CERT": str(self.certificate),
                "RAY_TLS_CA_CERT": str(self.authority),
            }
        return found


@dataclass(frozen=True)
class RayNode:
    """One node of a Ray cluster that we start ourselves."""

    node_id: str
    address: str
    """The address of this machine that the other nodes use."""
    socket: Path
    """The worker's socket, to which the relay connects."""
    folder: Path
    """For Ray's session files."""
    gpus: int = 0
    cpus: int = 0
    ports: RayPorts = field(default_factory=RayPorts)
    security: RaySecurity = field(default_factory=RaySecurity)

    def head_command(self) -> list[str]:
        """Start the head, in the foreground; its environment names where it stores its state."""
        command = [*self._start(), "--head", f"--port={self.ports.head}", "--include-dashboard=false"]
        return [*command, *self._common()]

    def node_command(self, head: str) -> list[str]:
        """Join the head at ``host:port``, in the foreground."""
        return [*self._start(), f"--address={head}", *self._common()]

    def environment(self, storage: Path | None = None) -> dict[str, str]:
        """Variables for the process, and through it for the relay; `storage` is that of the head."""
        stored = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage)} if storage is not None else {}
        return HEALTH | stored | self.security.environment() | {SOCKET_VARIABLE: str(self.socket)}

    def clear(self) -> None:
        """Delete Ray's note of a head that was killed: with it, a head would not start beside its living nodes."""
        (self.folder / "ray_current_cluster").unlink(missing_ok=True)

    def _start(self) -> list[str]:
        # The module, not the script, which may lie outside PATH.
        return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]

    def _common(self) -> list[str]:
        ports = self.ports
        return [
            f"--node-ip-address={self.address}",
            f"--node-manager-port={ports.node_manager}",
            f"--object-manager-port={ports.object_manager}",
            f"--metrics-export-port={ports.metrics_agent}",
            f"--dashboard-agent-listen-port={ports.agent_listen}",
            f"--dashboard-agent-grpc-port={ports.agent_grpc}",
            f"--min-worker-port={ports.worker_min}",
            f"--max-worker-port={ports.worker_max}",
            f"--num-cpus={self.cpus}",
            f"--num-gpus={self.gpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--resources={json.dumps({f'{NODE_RESOURCE}{self.node_id}': 1})}",
            f"--temp-dir={self.folder}",
            "--include-log-monitor=false",
            "--disable-usage-stats",
        ]


def bridge_environment(security: RaySecurity) -> Mapping[str, str]:
    """Variables for the bridge."""
    return HEALTH | security.environment()
