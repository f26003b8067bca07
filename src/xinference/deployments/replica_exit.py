"""The consequences of a replica's exit: values that `ReplicaSet` returns to the owner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from xinference.errors import Problem


@dataclass(frozen=True)
class Restart:
    """The replica is started again."""

    number: int
    reason: str


@dataclass(frozen=True)
class RestartLimitReached:
    """The replica is not started again."""

    problem: Problem
    is_last: bool
    """No other replica of the deployment runs or is being started."""


@dataclass(frozen=True)
class StartFailed:
    """The first start of the replica failed."""

    number: int
    problem: Problem
    ready_reply: asyncio.Future[None] | None
    """The reply to the request that added the replica; None: the replica belongs to the launch."""


@dataclass(frozen=True)
class ReplicaRemoved:
    """A replica that was removed on request has exited."""

    last_problem: Problem | None
    """The problem of the last replica, if none of the others is started again."""


Outcome = Restart | RestartLimitReached | StartFailed | ReplicaRemoved | None
