"""Adopts the running engines of an earlier server, before their deployments are planned."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping

from xinference.deployments.context import Ending
from xinference.launch.launch_context import decode_launch
from xinference.launch.plan import ResolvedLaunch
from xinference.nodes.gang import Gang, rank_id
from xinference.nodes.node import Node, ReplicaLike, node_of
from xinference.store.database import ReplicaRow, Store

#: A replica's id is also the name of its socket: a damaged one must not lead to another file.
_REPLICA_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


async def adopt_running(uid: str, store: Store, nodes: Mapping[str, Node]) -> dict[str, ReplicaLike]:
    """The running replicas of a deployment by their ids. Their keepers stop no engine while this server runs.

    Raises:
        Problem: the rows cannot be read, or the folder of the sockets is not safe.
    """
    rows = [row for row in store.replicas(uid) if _REPLICA_ID.fullmatch(row.replica_id)]
    found = await asyncio.gather(*(_adopt(row, nodes) for row in rows))
    return {row.replica_id: replica for row, replica in zip(rows, found, strict=True) if replica is not None}


async def _adopt(row: ReplicaRow, nodes: Mapping[str, Node]) -> ReplicaLike | None:
    """The replica of a row; None: it does not run, or not on all of its nodes, and then not at all any more."""
    ranks = (row.node_id, *row.further_nodes)
    adopted = await asyncio.gather(
        *(node_of(nodes, node_id).adopt(rank_id(row.replica_id, number)) for number, node_id in enumerate(ranks))
    )
    running = [each for each in adopted if each is not None]
    if len(running) < len(ranks):
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
