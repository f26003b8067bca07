"""The state of a node, computed from its current data; nothing is stored.

Two rules. A link is not an engine: a node whose link is down stays in the table of routes while its engines answer.
A state is computed: no message can leave a node in a state that its link and its statuses deny.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec.structs import replace

#: Maximum age of a status of a node that is READY, in seconds.
STATUS_SECONDS = 5.0
#: Maximum difference of two clocks, in seconds.
CLOCK_SECONDS = 60.0


class NodeState(StrEnum):
    """What a node may be used for."""

    JOINING = "JOINING"
    """Its hello is accepted; its first status and its list of replicas are not here. Nothing is placed on it."""
    READY = "READY"
    UNREACHABLE = "UNREACHABLE"
    """Its link is down or silent. Nothing new is placed on it; its replicas stay in the table."""
    LOST = "LOST"
    """Its replicas leave the table and are planned anew elsewhere."""
    DRAINING = "DRAINING"
    """An operator takes it out: nothing new is placed, its replicas move one by one."""
    LEAVING = "LEAVING"
    """Its worker ends, and stops its engines: nothing new is placed, its replicas are started elsewhere."""
    INCOMPATIBLE = "INCOMPATIBLE"
    """Its hello is refused."""

    @property
    def takes_replicas(self) -> bool:
        """Whether a replica may be placed on the node."""
        return self is NodeState.READY

    @property
    def is_routed(self) -> bool:
        """Whether the replicas of the node are in the table of routes."""
        return self in (NodeState.READY, NodeState.DRAINING, NodeState.LEAVING, NodeState.UNREACHABLE)


class Knowledge(msgspec.Struct, frozen=True):
    """What is known of one node. Times are seconds of one monotonic clock; None: never.

    It is replaced by each status: a struct costs a tenth of a dataclass there.
    """

    link_is_up: bool = False
    link_changed: float = 0.0
    """When the link came up or went down; at first when the node was made known."""
    status_received: float | None = None
    """The newest status since the link came up."""
    replicas_received: bool = False
    """Whether the node's list of its replicas came since the link came up."""
    is_drained: bool = False
    is_leaving: bool = False
    """Its worker said over its last link that it ends with its engines."""
    refusal: str | None = None
    """Why its hello was refused; None: it was accepted."""

    def with_link(self, *, is_up: bool, now: float) -> Knowledge:
        """The link came up or went down.

        A link that comes up begins without a status. One that is down was down since its last message if it was silent
        before: the kernel needs 8 s to notice a pulled cable.
        """
        if is_up == self.link_is_up:
            return self
        if is_up:
            up = replace(self, link_is_up=True, link_changed=now)
            return replace(up, status_received=None, replicas_received=False, is_leaving=False)
        silent_since = _silent_since(self, now)
        return replace(self, link_is_up=False, link_changed=now if silent_since is None else silent_since)

    def with_status(self, now: float) -> Knowledge:
        """A status came. One that comes over a link that is down is late and is not counted."""
        return replace(self, status_received=now) if self.link_is_up else self

    def with_replicas(self, *, is_leaving: bool = False) -> Knowledge:
        """The list of replicas came; `is_leaving`: with the word that the worker ends."""
        return replace(self, replicas_received=True, is_leaving=is_leaving) if self.link_is_up else self

    def with_leaving(self) -> Knowledge:
        """The worker ends with its engines."""
        return replace(self, is_leaving=True) if self.link_is_up else self


def node_state(known: Knowledge, now: float, lost_seconds: float) -> NodeState:
    """The state of a node at `now`.

    Args:
        known: what is known of the node.
        now: seconds of the clock of `known`.
        lost_seconds: how long a node may be out of reach before its replicas are planned anew.
    """
    if known.refusal is not None:
        return NodeState.INCOMPATIBLE
    silent_since = _silent_since(known, now)
    if silent_since is not None:
        return NodeState.LOST if now >= _lost_at(known, silent_since, lost_seconds) else NodeState.UNREACHABLE
    if known.is_leaving:
        return NodeState.LEAVING
    if known.status_received is None or not known.replicas_received:
        return NodeState.JOINING
    return NodeState.DRAINING if known.is_drained else NodeState.READY


def seconds_left(known: Knowledge, now: float, lost_seconds: float) -> float | None:
    """Seconds until the node is LOST if nothing changes; None: its link works."""
    silent_since = _silent_since(known, now)
    return None if silent_since is None else max(0.0, _lost_at(known, silent_since, lost_seconds) - now)


def _lost_at(known: Knowledge, silent_since: float, lost_seconds: float) -> float:
    """When a silent node is LOST: at once if its worker has said that it ends, because its engines end with it."""
    return silent_since if known.is_leaving and not known.link_is_up else silent_since + lost_seconds


def _silent_since(known: Knowledge, now: float) -> float | None:
    """Since when the node is silent; None: its link is up and its last message is not old."""
    if not known.link_is_up:
        return known.link_changed
    heard = known.link_changed if known.status_received is None else known.status_received
    return None if now - heard <= STATUS_SECONDS else heard
