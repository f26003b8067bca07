"""An on-demand model: the count of waiting requests, and the transitions between its residency states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import Enum, auto

from xinference.config import Settings
from xinference.deployments.messages import (
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
    """The action of the owner on a transition."""

    NONE = auto()
    LOAD = auto()
    """Prepare the model if it is not prepared, and request memory."""
    WITHDRAW = auto()
    """Withdraw from the queue for memory; the admission replies with `Refused`."""
    START = auto()
    """Start the engines with the granted plan."""
    DRAIN = auto()
    """Publish the route without targets, and wait for the last answers."""
    DECLINE = auto()
    """Notify the admission that the model declines its eviction."""
    UNLOAD = auto()
    """Stop the engines and release the memory."""
    RELOAD = auto()
    """Stop the engines, release the memory and request memory again: requests wait."""
    REFUSE = auto()
    """Stop the engines, release the memory, and refuse the waiting requests with the reason."""
    SHOW_UNLOADED = auto()
    """Publish that the model is unloaded: no request waits any more."""
    RELEASE = auto()
    """Release memory that was granted after the last waiting request had ended."""


def next_residency(state: Residency, message: Message, waiting: int) -> tuple[Residency, Action]:
    """The state after a message, and the owner's action. A message that a state does not handle changes nothing.

    `waiting` is the number of requests that wait for the model; for `Evict`, it includes those at its engines.
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
            return Residency.UNLOADED, Action.SHOW_UNLOADED
        case Prepared():
            return Residency.QUEUED, Action.LOAD
        case Abandoned() if not waiting:
            return Residency.QUEUED, Action.WITHDRAW
        case Granted():
            return Residency.LOADING, Action.START
        case Refused(problem) if problem.code == Code.NOBODY_WAITS and waiting:
            # Requests that came after the withdrawal are not refused.
            return Residency.QUEUED, Action.LOAD
        case Refused(problem) if problem.code == Code.NOBODY_WAITS:
            return Residency.UNLOADED, Action.SHOW_UNLOADED
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
    """The conditions for unloading a model, from its launch request and the settings."""
    default_ttl = 0.0 if request.pin else settings.on_demand_ttl_seconds
    return OnDemandTerms(default_ttl if request.ttl is None else request.ttl, request.pin, request.priority)


class DemandCounter:
    """Counts the requests that wait for a model. The requests write the count; the owner reads it."""

    def __init__(self, limit: int, abandoned: Callable[[], None]) -> None:
        """`abandoned` is called when the last waiting request has ended."""
        self._limit = limit
        self._abandoned = abandoned
        self.waiting = 0

    @contextlib.contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """Count one waiting request while the block runs.

        Raises:
            Problem: 429 ``too_many_waiting``.
        """
        if self.waiting >= self._limit:
            raise Problem(
                Code.TOO_MANY_WAITING,
                f"{self.waiting} requests wait for the model {name} to be loaded, which is the maximum.",
                hint="Retry later, or raise XINFERENCE_ON_DEMAND_QUEUE.",
            )
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            if not self.waiting:
                self._abandoned()
