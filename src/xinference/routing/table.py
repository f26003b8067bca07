"""What the gateway knows of the controller: an immutable table and one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from xinference.errors import Problem


@dataclass(frozen=True)
class Target:
    """One healthy replica, as the gateway reaches it."""

    replica_id: str
    base_url: str
    """``http://127.0.0.1:port``, no trailing slash."""
    api_key: str
    """The engine's key, made for this launch; never shown to clients."""


@dataclass(frozen=True)
class Route:
    """One deployment as the gateway sees it.

    `targets` is empty unless at least one replica answers. Then `stage` says what is being waited for, and
    `problem` is set if nothing will come of it.
    """

    uid: str
    targets: tuple[Target, ...] = ()
    stage: str = "pending"
    retry_after: int = 5
    """Seconds after which asking again is worth it."""
    recovering: bool = False
    """It has answered before and is being restarted: a request may wait."""
    on_demand: bool = False
    """A request loads it: `ensure_ready` waits until that is done."""
    problem: Problem | None = None
    paths: frozenset[str] = frozenset()
    """Request paths that its engine serves, such as ``/v1/chat/completions``."""
    description: Mapping[str, Any] = field(default_factory=dict)
    """The model's entry in ``GET /v1/models``."""
    adapters: tuple[str, ...] = ()
    """Further names that its engine answers to: LoRA adapters'."""
    request_limits: int | None = None
    """Requests that it takes at the same time; None: as many as come."""
    stop: tuple[str, ...] = ()
    """Texts that end a chat's answer, unless the request names its own."""
    stop_token_ids: tuple[int, ...] = ()
    """The same for tokens, beside those that end every text."""
    parent: str | None = None
    """The deployment whose adapter this is; None: a deployment itself."""


@dataclass(frozen=True)
class RoutingTable:
    """All deployments at one moment, and the ready-made answer of ``GET /v1/models``."""

    routes: Mapping[str, Route] = field(default_factory=lambda: MappingProxyType({}))
    listing: bytes = b'{"object":"list","data":[]}'


def with_adapters(deployments: Mapping[str, Route]) -> dict[str, Route]:
    """The routes by uid, and after them one for each adapter's name; a uid wins over an adapter of its name."""
    routes = dict(deployments)
    for uid, route in deployments.items():
        for name in route.adapters:
            described = {**route.description, "parent": uid}
            adapter = replace(route, uid=name, parent=uid, adapters=(), description=MappingProxyType(described))
            routes.setdefault(name, adapter)
    return routes
