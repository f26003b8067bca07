"""Adopts the running engines of an earlier server, before their deployments are planned."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection, Iterable, Mapping

from xinference.deployments.context import Ending
from xinference.launch.launch_context import decode_launch
from xinference.launch.plan import ResolvedLaunch
from xinference.nodes.gang import Gang, rank_id
from xinference.nodes.node import Node, ReplicaLike
from xinference.store.database import ReplicaRow, Store
from xinference.store.row_types import shown

log = logging.getLogger(__name__)
#: A replica's id is also the name of its socket: a damaged one must not lead to another file.
_REPLICA_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
#: Maximum number of unknown nodes of a replica that a warning names.
_LISTED = 3


async def adopt_running(uid: str, store: Store, nodes: Mapping[str, Node]) -> dict[str, ReplicaLike]:
    """The running replicas of a deployment by their ids. Their keepers stop no engine while this server runs.

    Raises:
        Problem: the rows cannot be read, or the folder of the sockets is not safe.
    """
    rows = [row for row in store.replicas(uid) if _REPLICA_ID.fullmatch(row.replica_id)]
    found = await asyncio.gather(*(_adopt(row, nodes) for row in rows), return_exceptions=True)
    if errors := [each for each in found if isinstance(each, BaseException)]:
        # Without an owner, their engines would run as long as this server.
        await end_adopted(
            [each for each in found if each is not None and not isinstance(each, BaseException)], "detach"
        )
        raise errors[0]
    return {
        row.replica_id: replica
        for row, replica in zip(rows, found, strict=True)
        if replica is not None and not isinstance(replica, BaseException)
    }


async def _adopt(row: ReplicaRow, nodes: Mapping[str, Node]) -> ReplicaLike | None:
    """The replica of a row; None: it does not run, or not on all of its nodes, and then not at all any more.

    A process that was started for another deployment is ended: the row was changed by another program.
    """
    ranks = (row.node_id, *row.further_nodes)
    if unknown := [node_id for node_id in ranks if node_id not in nodes]:
        log.warning(
            "replica %s of %s was started on %s, which is not a node of this server: it is started again where there "
            "is room",
            *(row.replica_id, row.uid, ", ".join(map(shown, unknown[:_LISTED]))),
        )
    known = [(number, nodes[node_id]) for number, node_id in enumerate(ranks) if node_id in nodes]
    adopted = await asyncio.gather(*(node.adopt(rank_id(row.replica_id, number)) for number, node in known))
    running = [each for each in adopted if each is not None]
    owners = {each.snapshot.context.get("uid", row.uid) for each in running}
    if others := owners - {row.uid}:
        log.error("replica %s of %s was started for %s: it is ended", row.replica_id, row.uid, shown(others.pop()))
    if len(running) < len(ranks) or owners != {row.uid}:
        await end_adopted(running, "stop")
        return None
    return Gang(running) if row.further_nodes else running[0]


async def end_adopted(adopted: Iterable[ReplicaLike], how: Ending) -> None:
    """End or detach adopted replicas that belong to no deployment."""
    await asyncio.gather(*(process.detach() if how == "detach" else process.stop() for process in adopted))


def launch_of(uid: str, adopted: Iterable[ReplicaLike], engines: Collection[str]) -> ResolvedLaunch | None:
    """The launch that the replicas were started with; None: another release made it, or its engine does not exist."""
    for process in adopted:
        launch = decode_launch(uid, process.snapshot.context.get("launch"))
        if launch is not None and launch.engine in engines:
            return launch
    return None
