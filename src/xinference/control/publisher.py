"""Publishes the routing table to the gateway, and waits for changes of a route."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from xinference.deployments.snapshot import DeploymentSnapshot
from xinference.deployments.views import alias_entry
from xinference.error_codes import Code
from xinference.errors import Problem, server_stopping
from xinference.routing.table import Route, RoutingTable, with_other_names


def load_hint(route: Route) -> str:
    """The line that loads an unloaded model."""
    return f"Load it with `xinference load {route.parent or route.uid}`."


def _entry(name: str, route: Route, entries: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry of a deployment, an adapter or an alias in ``GET /v1/models``."""
    if route.parent is not None:
        return {**entries[route.parent], "id": name, "parent": route.parent}
    return entries[name] if name == route.uid else alias_entry(name, entries[route.uid])


class SnapshotSource(Protocol):
    """A deployment with a snapshot, for which a request waits."""

    @property
    def snapshot(self) -> DeploymentSnapshot: ...


class Publisher:
    """Owns the newest routing table."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self._changes = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []
        self._stopping = False

    def subscribe(self, published: Callable[[], None]) -> None:
        """Call `published` after each new table, before the tasks that wait for a change continue."""
        self._subscribers.append(published)

    def publish(self, entries: Iterable[tuple[Route, Mapping[str, Any]]]) -> None:
        """Make a new table from each deployment's route and ``/v1/models`` entry; the next request uses it."""
        deployments, listing_entries = {}, {}
        for route, entry in entries:
            deployments[route.uid], listing_entries[route.uid] = route, entry
        routes = with_other_names(deployments)
        data = [
            _entry(name, route, listing_entries)
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
        """End all current and later waits for a target, because the server is stopping."""
        self._stopping = True
        self._changes.set()
        self._changes = asyncio.Event()

    async def wait_until_ready(
        self, uid: str, end: float, deployment: SnapshotSource | None, unknown: Callable[[str], Problem]
    ) -> Route:
        """Wait until `uid` has a target, at most until the time `end` of `time.monotonic`.

        Raises:
            Problem: `unknown(uid)` if there is no such route; the refusal of a load of `deployment` during the wait;
                the problem of a failed launch; 503 ``model_loading`` at the end of the time.
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
            if route.unloaded:
                raise Problem(Code.MODEL_UNLOADED, f"The model {uid} is unloaded.", hint=load_hint(route))
            if deployment is not None and deployment.snapshot.refusals != refusals and deployment.snapshot.refusal:
                raise deployment.snapshot.refusal
            remaining = end - time.monotonic()
            if route.problem is not None or remaining <= 0:
                raise route.problem or Problem(
                    Code.MODEL_LOADING, f"The model {uid} is not ready yet (stage {route.stage}).", stage=route.stage
                )
            try:
                await asyncio.wait_for(self._changes.wait(), remaining)
            except TimeoutError:
                continue
