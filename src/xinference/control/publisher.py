"""The routing table that the gateway reads, and waiting for a change in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from xinference.deployments.snapshot import DeploymentSnapshot
from xinference.error_codes import Code
from xinference.errors import Problem, server_stopping
from xinference.routing.table import Route, RoutingTable, with_adapters


class Watched(Protocol):
    """A deployment that requests wait for."""

    @property
    def snapshot(self) -> DeploymentSnapshot: ...


class Publisher:
    """Holds the newest table."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self._changes = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []
        self._stopping = False

    def subscribe(self, published: Callable[[], None]) -> None:
        """Have `published` called after each new table, before those who wait for a change go on."""
        self._subscribers.append(published)

    def publish(self, entries: Iterable[tuple[Route, Mapping[str, Any]]]) -> None:
        """Make a new table of each deployment's route and ``/v1/models`` entry; the next request uses it."""
        deployments, listed = {}, {}
        for route, entry in entries:
            deployments[route.uid], listed[route.uid] = route, entry
        routes = with_adapters(deployments)
        data = [
            listed[name] if route.parent is None else {**listed[route.parent], "id": name, "parent": route.parent}
            for name, route in routes.items()
            if route.targets or route.recovering or route.on_demand
        ]
        listing = msgspec.json.encode({"object": "list", "data": data})
        self.table = RoutingTable(MappingProxyType(routes), listing)
        for published in self._subscribers:
            published()
        self._changes.set()
        self._changes = asyncio.Event()

    def end_waits(self) -> None:
        """End all waits for a target, now and later: the server is stopping."""
        self._stopping = True
        self._changes.set()
        self._changes = asyncio.Event()

    async def until_ready(
        self, uid: str, end: float, deployment: Watched | None, unknown: Callable[[str], Problem]
    ) -> Route:
        """Wait until `uid` has a target, at most until `end` by `time.monotonic`; see `Router.ensure_ready`.

        A load of `deployment` that is refused meanwhile ends the wait.
        """
        refusals = deployment.snapshot.refusals if deployment else 0
        while True:
            route = self.table.routes.get(uid)
            if route is None:
                raise unknown(uid)
            if route.targets:
                return route
            if self._stopping:
                raise server_stopping()
            if deployment is not None and deployment.snapshot.refusals != refusals and deployment.snapshot.refusal:
                raise deployment.snapshot.refusal
            left = end - time.monotonic()
            if route.problem is not None or left <= 0:
                raise route.problem or Problem(
                    Code.MODEL_LOADING, f"The model {uid} is not ready yet (stage {route.stage}).", stage=route.stage
                )
            try:
                await asyncio.wait_for(self._changes.wait(), left)
            except TimeoutError:
                continue
