"""Passes the events of the fabric to the objects of their nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from xinference.fabric.fabric import Fabric, Link
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
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self._read_events())
            readers.create_task(self._read_links())

    async def _read_events(self) -> None:
        async for node_id, event in self._fabric.events():
            if (node := self._nodes.get(node_id)) is not None:
                if (body := node.receive(event)) is not None:
                    self._note_event(node_id, body)
            else:
                log.warning("an event of %s, which is no node of this cluster", node_id)

    async def _read_links(self) -> None:
        async for link in self._fabric.links():
            if (node := self._nodes.get(link.node)) is not None:
                node.note_link(is_up=link.is_up)
                self._note_link(link)
