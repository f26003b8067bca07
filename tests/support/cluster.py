"""A node behind a link in this process: the agent and its `LocalNode` on one end, the `RemoteNode` on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from xinference.fabric.memory import MemoryFabric, MemoryUplink
from xinference.nodes.agent import Agent
from xinference.nodes.node import Node
from xinference.nodes.node_links import NodeLinks
from xinference.nodes.remote import RemoteNode

NODE = "n1"


class _Sender:
    """Sends the events of one agent on the link that this agent has joined."""

    uplink: MemoryUplink | None = None

    def send(self, event: bytes) -> None:
        if self.uplink is not None:
            self.uplink.send(event)


@dataclass
class Linked:
    """A node on both ends of its link."""

    fabric: MemoryFabric
    remote: RemoteNode
    agent: Agent

    def cut(self) -> None:
        self.fabric.cut(NODE)

    def mend(self) -> None:
        self.fabric.mend(NODE)

    def restart_agent(self, node: Node) -> None:
        """Another agent on the same machine takes the link; the earlier one can say nothing more."""
        self.agent = _joined(node, self.fabric)


def _joined(node: Node, fabric: MemoryFabric) -> Agent:
    sender = _Sender()
    agent = Agent(node, sender.send)
    sender.uplink = fabric.join(NODE, agent)
    return agent


@asynccontextmanager
async def linked(node: Node, epoch: int = 1) -> AsyncIterator[Linked]:
    """`node` behind a link; its replicas are detached at the end, if they run."""
    fabric = MemoryFabric()
    made = Linked(fabric, RemoteNode(NODE, fabric, epoch), _joined(node, fabric))
    reading = asyncio.create_task(NodeLinks(fabric, {NODE: made.remote}).run())
    try:
        yield made
    finally:
        await made.remote.close()
        await made.agent.close()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
