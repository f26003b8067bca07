"""The upgrade of a node: its worker restarts with the package that is installed by then, and its engines run on."""

from __future__ import annotations

import asyncio

from xinference.cluster.members import Member, Members
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes.membership import NodeState

#: Maximum time until the node is back, in seconds: last answers and a start on a slow machine.
UPGRADE_SECONDS = 90.0
#: Interval at which its state is looked at, in seconds.
LOOK_SECONDS = 0.1
_WORKING = frozenset({NodeState.READY, NodeState.DRAINING})


async def upgrade(members: Members, member: Member, seconds: float = UPGRADE_SECONDS) -> None:
    """Restart the worker of a node, and wait until the node is READY or DRAINING again. Nothing is placed meanwhile.

    Raises:
        Problem: 503 ``node_gone``, the node is out of reach; 409 ``node_busy``, it is being upgraded; 504
            ``node_timeout``, it does not come back.
    """
    state = members.state_of(member)
    if state not in _WORKING:
        cause = f"The node {member.node_id} ({member.name}) is {state}, so its worker can't be restarted."
        raise Problem(Code.NODE_GONE, cause, hint="Start `xinference-worker` there: it is the installed version.")
    if member.is_upgrading:
        raise Problem(Code.NODE_BUSY, f"The node {member.node_id} ({member.name}) is being upgraded already.")
    hellos, member.is_upgrading = member.hellos, True
    try:
        await member.node.restart()
        async with asyncio.timeout(seconds):
            while member.hellos == hellos or members.state_of(member) not in _WORKING:  # noqa: ASYNC110 -- no event says both
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise Problem(
            Code.NODE_TIMEOUT,
            f"The worker of the node {member.node_id} ({member.name}) has not reconnected after {seconds:g} s.",
            hint="Start `xinference-worker` there: its engines wait for XINFERENCE_GRACE_SECONDS. See its log.",
        ) from None
    finally:
        member.is_upgrading = False
