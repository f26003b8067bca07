"""The consequences of a replica's exit: values that `ReplicaSet` returns to the owner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from xinference.errors import Problem


@dataclass(frozen=True)
class Restart:
    """A replica is started again."""

    number: int
    why: str


@dataclass(frozen=True)
class GivenUp:
    """A replica is not started again."""

    problem: Problem
    last: bool
    """No other replica is left."""


@dataclass(frozen=True)
class NotStarted:
    """The first start of a replica failed."""

    number: int
    problem: Problem
    added: asyncio.Future[None] | None
    """To be told; None: it is one of those that the deployment was launched with."""


@dataclass(frozen=True)
class Removed:
    """A replica that was removed has ended."""

    last: Problem | None
    """Why no other replica is left."""


Outcome = Restart | GivenUp | NotStarted | Removed | None
