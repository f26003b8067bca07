"""Passes the events of the fabric to the objects of their nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from xinference.fabric.fabric import Event, Fabric, Link
from xinference.nodes.messages import ReceivedEvent
from xinference.nodes.remote import RemoteNode

log = logging.getLogger(__name__)


class NodeLinks:
    """The one reader of a fabric's events and links."""

    def __init__(
        self,
        fabric: Fabric,
        nodes: Mapping[str, RemoteNode],
        note_link: Callable[[Link], None] = lambda link: None,
        note_event: Callable[[str, ReceivedEvent], None] = lambda node_id, event: None,
    ) -> None:
        """
        Args:
            nodes: may change: a node that joins is in it before its link comes up.
            note_link: called with each change of a link, after its node.
            note_event: called with each event that could be read, after its node.
        """
        self._fabric = fabric
        self._nodes = nodes
        self._note_link = note_link
        self._note_event = note_event

    async def run(self) -> None:
        """Read until the task is cancelled."""
        await self._fabric.hand_over(self._take_event, self._take_link)

    def _take_event(self, node_id: str, event: Event) -> None:
        if (node := self._nodes.get(node_id)) is None:
            log.warning("an event of %s, which is no node of this cluster", node_id)
            return
        try:
            if (body := node.receive(event)) is not None:
                self._note_event(node_id, body)
        except Exception:
            # A defect of xinference in an event of one node must not end the links of all.
            log.exception("an event of the node %s", node_id)

    def _take_link(self, link: Link) -> None:
        if (node := self._nodes.get(link.node)) is not None:
            node.note_link(is_up=link.is_up)
            self._note_link(link)
