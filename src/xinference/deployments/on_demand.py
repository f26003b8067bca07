"""An on-demand model: the count of waiting requests, and the transitions between its residency states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import Enum, auto

from xinference.config import Settings
from xinference.deployments.inbox import (
    Abandoned,
    Drained,
    Evict,
    Granted,
    Message,
    PreparationFailed,
    Prepared,
    Refused,
    ReplicaReady,
    ReplicasFailed,
    Requested,
)
from xinference.deployments.snapshot import OnDemandTerms, Residency
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest


class Action(Enum):
    """What the owner does on a transition."""

    NONE = auto()
    LOAD = auto()
    """Prepare it if it has to be, and ask for memory."""
    WITHDRAW = auto()
    """Give up the place in the queue for memory; the admission answers."""
    START = auto()
    """Start the engines in the memory that was granted."""
    DRAIN = auto()
    """Publish the route without targets, and wait for the last answer."""
    DECLINE = auto()
    """Tell the admission that it does not leave."""
    UNLOAD = auto()
    """End the engines and give the memory back."""
    RELOAD = auto()
    """The same, and ask for memory again: requests wait."""
    REFUSE = auto()
    """End the engines, give the memory back, and tell those who wait why."""
    REST = auto()
    """Say that it is unloaded: nobody waits any more."""
    RELEASE = auto()
    """Give memory back that nobody asked for any more."""


def next_residency(state: Residency, message: Message, waiting: int) -> tuple[Residency, Action]:
    """The state after a message, and what is to be done; what a state ignores leaves it as it is.

    `waiting` is the number of requests that wait for the model; for `Evict`, those at its engines count too.
    """
    match state:
        case Residency.UNLOADED:
            return _unloaded(message, waiting)
        case Residency.QUEUED:
            return _queued(message, waiting)
        case Residency.LOADING:
            return _loading(message)
        case Residency.LOADED:
            return _loaded(message, waiting)
        case Residency.DRAINING:
            return _draining(message, waiting)


def _unloaded(message: Message, waiting: int) -> tuple[Residency, Action]:
    match message:
        case Requested() | Prepared() if waiting:
            return Residency.QUEUED, Action.LOAD
        case PreparationFailed():
            return Residency.UNLOADED, Action.REFUSE
        case Granted():
            return Residency.UNLOADED, Action.RELEASE
        case Evict():
            return Residency.UNLOADED, Action.DECLINE
    return Residency.UNLOADED, Action.NONE


def _queued(message: Message, waiting: int) -> tuple[Residency, Action]:
    match message:
        case Prepared() if not waiting:
            return Residency.UNLOADED, Action.REST
        case Prepared():
            return Residency.QUEUED, Action.LOAD
        case Abandoned() if not waiting:
            return Residency.QUEUED, Action.WITHDRAW
        case Granted():
            return Residency.LOADING, Action.START
        case Refused(problem) if problem.code == Code.NOBODY_WAITS and waiting:
            # Whoever has come since then is not refused.
            return Residency.QUEUED, Action.LOAD
        case Refused(problem) if problem.code == Code.NOBODY_WAITS:
            return Residency.UNLOADED, Action.REST
        case Refused() | PreparationFailed():
            return Residency.UNLOADED, Action.REFUSE
        case Evict():
            return Residency.QUEUED, Action.DECLINE
    return Residency.QUEUED, Action.NONE


def _loading(message: Message) -> tuple[Residency, Action]:
    match message:
        case ReplicaReady():
            return Residency.LOADED, Action.NONE
        case ReplicasFailed() | PreparationFailed():
            return Residency.UNLOADED, Action.REFUSE
        case Evict():
            return Residency.LOADING, Action.DECLINE
    return Residency.LOADING, Action.NONE


def _loaded(message: Message, waiting: int) -> tuple[Residency, Action]:
    match message:
        case Evict(_, only_idle) if only_idle and waiting:
            return Residency.LOADED, Action.DECLINE
        case Evict():
            return Residency.DRAINING, Action.DRAIN
        case ReplicasFailed() | PreparationFailed():
            return Residency.UNLOADED, Action.REFUSE
    return Residency.LOADED, Action.NONE


def _draining(message: Message, waiting: int) -> tuple[Residency, Action]:
    match message:
        case Drained() if waiting:
            return Residency.QUEUED, Action.RELOAD
        case Drained():
            return Residency.UNLOADED, Action.UNLOAD
    return Residency.DRAINING, Action.NONE


def terms_of(request: LaunchRequest, settings: Settings) -> OnDemandTerms:
    """When a model on demand may be unloaded, as its launch or the settings say."""
    default_ttl = 0.0 if request.pin else settings.on_demand_ttl_seconds
    return OnDemandTerms(default_ttl if request.ttl is None else request.ttl, request.pin, request.priority)


class DemandCounter:
    """The number of requests that wait for a model; written by them, read by its owner."""

    def __init__(self, limit: int, abandoned: Callable[[], None]) -> None:
        """`abandoned` is called when the last request has gone."""
        self._limit = limit
        self._abandoned = abandoned
        self.waiting = 0

    @contextlib.contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """Count one request more while the block runs.

        Raises:
            Problem: 429 ``too_many_waiting``.
        """
        if self.waiting >= self._limit:
            raise Problem(
                Code.TOO_MANY_WAITING,
                f"{self.waiting} requests wait for the model {name} to be loaded, and no more may.",
                hint="Ask again later; XINFERENCE_ON_DEMAND_QUEUE is the limit.",
            )
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            if not self.waiting:
                self._abandoned()
