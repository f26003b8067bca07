"""The nodes of a cluster on which a model's replicas run, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.hosts import LOCAL_NODE

#: Maximum number of nodes that a table names.
NODES_NAMED = 2


def runs_elsewhere(instance: Mapping[str, Any]) -> bool:
    """Whether a replica is on another machine than the server."""
    return any(node != LOCAL_NODE for replica in instance.get("replicas") or () for node in _nodes(replica))


def nodes_text(instance: Mapping[str, Any]) -> str | None:
    """The names of the nodes with a replica, or their number if there are many; None: it has no replica."""
    names: dict[str, str] = {}
    for replica in instance.get("replicas") or ():
        names |= zip(_nodes(replica), _names(replica), strict=True)
    if len(names) > NODES_NAMED:
        return f"{len(names)} nodes"
    return ", ".join(names.values()) or None


def place_text(replica: Mapping[str, Any]) -> str | None:
    """The nodes of one replica by name; None: it is on the server's own machine."""
    if all(node == LOCAL_NODE for node in _nodes(replica)):
        return None
    names = _names(replica)
    return f"node {names[0]}" if len(names) == 1 else f"nodes {' + '.join(names)}"


def _nodes(replica: Mapping[str, Any]) -> list[str]:
    """The ids of a replica's nodes; servers of older versions name none."""
    return replica.get("nodes") or [replica.get("node") or LOCAL_NODE]


def _names(replica: Mapping[str, Any]) -> list[str]:
    return replica.get("node_names") or _nodes(replica)
