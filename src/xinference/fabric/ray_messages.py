"""The messages between the server and its driver in a Ray cluster that somebody else has started.

The wishes are sent whole, and the newest replaces all others: a driver that is started again gets the same ones.
"""

from __future__ import annotations

import msgspec


class WorkerOrder(msgspec.Struct, frozen=True):
    """What the worker of a Ray node is started with."""

    supervisor: str
    """Node id of the supervisor, which tells its workers from those of others."""
    endpoint: str
    """URL of the supervisor."""
    link_port: int
    """Port of the supervisor to which workers connect."""
    worker_port: int
    home: str = ""
    """Data folder of the worker; empty: ``~/.xinference/ray/HOST``."""
    labels: dict[str, str] = {}
    token: str = ""
    """A join token; empty: only look whether a worker runs."""
    joins_anew: bool = False
    """Whether the node joins as another one: the supervisor does not know the one that it was."""
    not_on: str = ""
    """Id of a machine on which no worker is started; empty: there is none."""


class StartWorker(msgspec.Struct, tag="start", frozen=True):
    """A question: find or start the worker of a node. The answer has a `WorkerReport`."""

    number: int
    ray_node: str
    order: WorkerOrder


class WorkerReport(msgspec.Struct, frozen=True):
    """What was found or done on a node."""

    node_id: str = ""
    """The worker's node id in the cluster of the supervisor; empty: none runs, and a token is needed."""
    was: str = ""
    """The node id of the worker that ran there before, for the same supervisor; empty: there was none."""
    pid: int = 0
    is_new: bool = False
    refusal: str = ""
    """Why no worker runs there; empty: one runs, or a token is needed."""
    home: str = ""


class Hold(msgspec.Struct, frozen=True):
    """What our replicas use of a Ray node, so that Ray gives it to nobody else."""

    ray_node: str
    gpus: tuple[int, ...] = ()
    memory_bytes: int = 0
    cpus: float = 0.0


class Want(msgspec.Struct, frozen=True):
    """What a launch has no room for: Ray's autoscaler is asked for nodes that have it."""

    uid: str
    gpus: int = 0
    cpus: float = 0.0
    nodes: int = 1
    """Number of nodes, beside those that Ray has had when the launch began to want."""


class Wishes(msgspec.Struct, tag="wishes", frozen=True):
    """All that is to be reserved."""

    holds: tuple[Hold, ...] = ()
    wants: tuple[Want, ...] = ()


class RayNodeEntry(msgspec.Struct, frozen=True):
    """A living node of Ray."""

    ray_node: str
    name: str
    address: str
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}


class RayState(msgspec.Struct, tag="state", frozen=True):
    """What Ray says now."""

    address: str
    """The address of this machine that the nodes of Ray reach."""
    version: str
    nodes: tuple[RayNodeEntry, ...] = ()
    lacking: dict[str, str] = {}
    """Node -> what could not be reserved there."""


class RayLost(msgspec.Struct, tag="lost", frozen=True):
    """Ray cannot be used; the process ends."""

    code: str
    cause: str
    hint: str = ""
