"""The events from the nodes that wait for their reader, the same for each kind of fabric."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from xinference.fabric.fabric import Event, Link


class Inbox:
    """The part of a `fabric.Fabric` that its readers use."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[tuple[str, Event]] = asyncio.Queue()
        self._links: asyncio.Queue[Link] = asyncio.Queue()

    async def events(self) -> AsyncIterator[tuple[str, Event]]:
        """See `fabric.Fabric.events`."""
        while True:
            yield await self._events.get()

    async def links(self) -> AsyncIterator[Link]:
        """See `fabric.Fabric.links`."""
        while True:
            yield await self._links.get()

    async def hand_over(self, take_event: Callable[[str, Event], None], take_link: Callable[[Link], None]) -> None:
        """See `fabric.Fabric.hand_over`."""
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self._hand_over_events(take_event))
            readers.create_task(self._hand_over_links(take_link))

    async def _hand_over_events(self, take: Callable[[str, Event], None]) -> None:
        async for node, event in self.events():
            take(node, event)

    async def _hand_over_links(self, take: Callable[[Link], None]) -> None:
        async for link in self.links():
            take(link)

    def add_event(self, node: str, event: Event) -> None:
        """Take an event of a node."""
        self._events.put_nowait((node, event))

    def add_link(self, node: str, *, is_up: bool) -> None:
        """Take a change of a link."""
        self._links.put_nowait(Link(node, is_up))
