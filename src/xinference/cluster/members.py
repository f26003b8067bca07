"""The nodes of a cluster and their states, computed from the events of the fabric."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from xinference.cluster.rows import NodeRow
from xinference.cluster.weights import WeightNode
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.fabric.fabric import Fabric, Link
from xinference.hosts import LOCAL_NODE
from xinference.nodes import messages
from xinference.nodes.membership import Knowledge, NodeState, node_state, seconds_left
from xinference.nodes.node import Node, NodeAddress
from xinference.nodes.node_links import NodeLinks
from xinference.nodes.remote import RemoteNode
from xinference.nodes.served_records import CountedRecords
from xinference.records.record import Record

log = logging.getLogger(__name__)
#: Interval at which the states are computed, in seconds: a silent node becomes LOST without any event.
TICK_SECONDS = 1.0
#: Time after which a node out of reach is LOST if the server stops its engines and ends, in seconds.
END_LOST_SECONDS = 2.0
#: Interval at which the states are looked at during the wait for the first links, in seconds.
LOOK_SECONDS = 0.05
#: The states of a node that may be READY in a moment.
_SILENT = frozenset({NodeState.JOINING, NodeState.UNREACHABLE})


@dataclass(eq=False)
class Member:
    """One node that has joined."""

    node: RemoteNode
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    front_door: str = ""
    """``host:port``; empty: it has not said hello to this server."""
    version: str = ""
    hubs: frozenset[str] | None = None
    """The hubs from which it may fetch weights; None: it does not say."""
    serves: str = ""
    """``host:port`` at which it takes the requests of clients; empty: it takes none."""
    machine: str = ""
    """The id of its machine; empty: not known."""
    hellos: int = 0
    """How often it has said hello to this server."""
    is_upgrading: bool = False
    """Its worker is restarted: nothing new is placed on it."""
    counted: CountedRecords = field(default_factory=CountedRecords)
    known: Knowledge = field(default_factory=Knowledge)
    state: NodeState = NodeState.UNREACHABLE
    """At the last tick; `Members.state_of` computes it now."""

    @property
    def node_id(self) -> str:
        return self.node.node_id

    def weight_node(self) -> WeightNode:
        """What the fetches of weights need to know of it, after its hello."""
        host, _, port = self.front_door.rpartition(":")
        return WeightNode(self.node_id, self.name, host.strip("[]"), int(port), self.hubs)


class Members:
    """The members by their ids.

    Args:
        nodes: gets the node of each member, for the deployments.
        is_known: whether a row names this replica; an engine without a row is stopped.
        changed: called with a member whose state has changed, and with its state before.
    """

    def __init__(
        self,
        fabric: Fabric,
        epoch: int,
        nodes: MutableMapping[str, Node],
        lost_seconds: float,
        is_known: Callable[[str], bool],
        changed: Callable[[Member, NodeState], None] = lambda member, before: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fabric = fabric
        self._epoch = epoch
        self._nodes = nodes
        self._lost_seconds = lost_seconds
        self._is_known = is_known
        self._clock = clock
        self.changed = changed
        self.wanted: Callable[[str], None] = lambda uid: None
        """Called with the uid of a model on demand for which a request waits on a node."""
        self.served: Callable[[Iterable[Record]], None] | None = None
        """Called with the records of requests that clients have sent to a node; None: they come again later."""
        self.leaves: Callable[[Member], None] | None = None
        """Called with a member whose worker waits until its replicas are ready elsewhere; calls `let_leave` then. None:
        nobody starts them elsewhere first."""
        self._members: dict[str, Member] = {}
        self._remotes: dict[str, RemoteNode] = {}

    def add(self, row: NodeRow) -> Member:
        """Make a node known that has joined; its link is down until it says hello."""
        if (known := self._members.get(row.node_id)) is not None:
            return known
        node = RemoteNode(row.node_id, self._fabric, self._epoch)
        member = Member(node, row.name, row.labels, known=Knowledge(link_changed=self._clock()))
        member.known = replace(member.known, is_drained=row.is_drained)
        self._members[row.node_id] = member
        self._remotes[row.node_id] = self._nodes[row.node_id] = node
        return member

    async def remove(self, node_id: str) -> None:
        """Forget a node. Its replicas end here; its own agent ends them there."""
        member = self._members.pop(node_id)
        member.node.give_up()
        del self._remotes[node_id]
        await member.node.close()
        self._nodes.pop(node_id, None)

    def note_hello(
        self,
        node_id: str,
        name: str,
        labels: Mapping[str, str],
        front_door: str,
        version: str,
        interface: str = "",
        hubs: Iterable[str] | None = None,
        serves: str = "",
        machine: str = "",
    ) -> None:
        """Take what a node says of itself, before its link is up."""
        member = self._members[node_id]
        member.machine = machine
        member.hubs = None if hubs is None else frozenset(hubs)
        member.serves = serves
        member.hellos += 1
        member.name, member.labels, member.front_door, member.version = name, dict(labels), front_door, version
        member.node.front_door = f"https://{front_door}"
        member.node.address = NodeAddress(front_door.rpartition(":")[0].strip("[]"), interface or None)

    def others_on(self, machine: str, node_id: str) -> list[Member]:
        """The other members on the machine with this id that are linked now; none if the id is not known."""
        linked = (each for each in self if each.known.link_is_up and each.node_id != node_id)
        return [each for each in linked if machine and each.machine == machine]

    def set_drained(self, node_id: str, *, drained: bool) -> None:
        """Take a node out, or in again."""
        member = self.get(node_id)
        member.known = replace(member.known, is_drained=drained)
        self._compute(member)

    # -- reading ----------------------------------------------------------------------------------------------

    def get(self, name: str) -> Member:
        """The member with this id, name or address.

        Raises:
            Problem: 404 ``node_not_found``, with the nodes; 400, several nodes have the name, or it is ``local``.
        """
        if (member := self._members.get(name)) is not None:
            return member
        host = [each for each in self if name in (each.name, each.front_door, each.front_door.rpartition(":")[0])]
        if len(host) == 1:
            return host[0]
        listed = ", ".join(f"{each.node_id} ({each.name})" for each in host or self) or "none"
        if host:
            raise Problem(Code.INVALID_REQUEST, f"{len(host)} nodes are called {name}.", hint=f"Use an id: {listed}.")
        if name == LOCAL_NODE:
            raise bad_request(
                "local is the supervisor's own machine: only workers are drained, upgraded and removed.",
                hint="`xinference-supervisor --no-models` runs models only on workers. `xinference restart` restarts "
                f"the supervisor with the version installed there. The workers: {listed}.",
            )
        raise Problem(Code.NODE_NOT_FOUND, f"The cluster has no node {name}.", hint=f"Its workers: {listed}.")

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members.values()))

    def state_of(self, member: Member) -> NodeState:
        """The state of a member now."""
        return node_state(member.known, self._clock(), self._lost_seconds)

    def lack_of(self, member: Member) -> str | None:
        """Why no replica may be placed on a member now, after its id; None: one may."""
        state = self.state_of(member)
        if not state.takes_replicas:
            return f"is {state}"
        return "is being upgraded" if member.is_upgrading else None

    async def wait_linked(self, seconds: float) -> None:
        """Wait until each node has said which replicas it has, for at most `seconds`."""
        end = self._clock() + seconds
        while self._clock() < end and any(self.state_of(member) in _SILENT for member in self):  # noqa: ASYNC110 -- no event says both
            await asyncio.sleep(LOOK_SECONDS)

    def seconds_left(self, member: Member) -> float | None:
        """Seconds until a member is LOST if nothing changes; None: its link works."""
        return seconds_left(member.known, self._clock(), self._lost_seconds)

    # -- the tasks --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read the fabric and compute the states, until the task is cancelled."""
        links = NodeLinks(self._fabric, self._remotes, self._note_link, self._note_event)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(links.run())
            tasks.create_task(self._tick())

    def begin_end(self) -> list[Member]:
        """Wait no longer for nodes out of reach: the server stops all engines, and ends. Returns those nodes.

        Their workers stop the engines when they have had no supervisor for `orphan_seconds`.
        """
        self._lost_seconds = min(self._lost_seconds, END_LOST_SECONDS)
        return [member for member in self if not member.known.link_is_up]

    async def close(self) -> None:
        """End the questions that have no answer."""
        for member in self:
            await member.node.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now, lost_seconds = self._clock(), self._lost_seconds
            for member in self:
                if node_state(member.known, now, lost_seconds) is not member.state:
                    self._compute(member)

    def _note_link(self, link: Link) -> None:
        if (member := self._members.get(link.node)) is not None:
            member.known = member.known.with_link(is_up=link.is_up, now=self._clock())
            self._compute(member)

    def _note_event(self, node_id: str, event: messages.ReceivedEvent) -> None:
        member = self._members[node_id]
        if isinstance(event, messages.HostReport):  # the most frequent one
            member.known = member.known.with_status(self._clock())
        elif isinstance(event, messages.WholeState):
            # It is the first event of a link, and may be read before the link's own change.
            member.known = member.known.with_link(is_up=True, now=self._clock())
            member.known = member.known.with_replicas(is_leaving=event.is_leaving)
            member.node.end_unknown(event, self._is_known)
        elif isinstance(event, messages.Leaving):
            member.known = member.known.with_leaving()
        else:
            if isinstance(event, messages.Wanted):
                self.wanted(event.uid)
            elif isinstance(event, messages.Served) and self.served is not None:
                member.node.acknowledge(event)
                self.served(replace(each, node=node_id) for each in member.counted.take(event, time.time()))
            return
        self._compute(member)
        if isinstance(event, messages.Leaving) and event.waits and self.leaves is not None:
            member.node.note_leave()
            self.leaves(member)
        elif isinstance(event, messages.Leaving) or (isinstance(event, messages.WholeState) and event.is_leaving):
            member.node.let_leave()

    def _compute(self, member: Member) -> None:
        state, before = self.state_of(member), member.state
        if state is before:
            return
        member.state = state
        log.info("node %s (%s): %s, was %s%s", member.node_id, member.name, state, before, _reason(state, member.known))
        if state is NodeState.LOST:
            member.node.give_up()
        elif before is NodeState.LOST:
            member.node.stop_given_up()
        self.changed(member, before)


def _reason(state: NodeState, known: Knowledge) -> str:
    """Why a node has a state, for the log; empty: the state says it."""
    if state is NodeState.LEAVING:
        return ": its worker ends and stops its engines; their replicas are started on other nodes"
    return ": its worker has ended" if state is NodeState.LOST and known.is_leaving else ""
