"""Lets a launch that fits on no node wait for a new node of the cluster, if one can be requested."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from xinference.control.same_launch import Launched
from xinference.deployments.context import RoomRequests
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest

log = logging.getLogger(__name__)
#: The refusals that a further node can cure.
CURABLE = (Code.DOES_NOT_FIT, Code.NO_NODE, Code.NO_SUCH_DEVICE)


async def launch_with_room(
    attempt: Callable[[], Awaitable[Launched]],
    request: LaunchRequest,
    room: RoomRequests,
    clock: Callable[[], float] = time.monotonic,
) -> Launched:
    """Launch; after a refusal for room, ask for a node, and launch again when it has come.

    Raises:
        Problem: as `attempt`; a refusal for room is that of the last attempt, after `RoomRequests.seconds`.
    """
    name = request.model_uid or request.model_name
    deadline = clock() + room.seconds
    try:
        while True:
            try:
                launched = await attempt()
            except Problem as problem:
                if problem.code not in CURABLE or clock() >= deadline:
                    raise
                log.info("%s has no room: a node is asked for (%s)", name, problem.cause)
                room.ask(name, request)
                if not await room.wait_for_node(name, deadline - clock()):
                    raise
            else:
                room.keep(name, launched.uid)
                return launched
    except (Problem, asyncio.CancelledError):
        room.end(name)
        raise
