"""The routing table, which the controller publishes for the gateway. Immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from xinference.errors import Problem


@dataclass(frozen=True)
class Target:
    """One ready replica: its address and the key that its engine requires."""

    replica_id: str
    base_url: str
    """``http://127.0.0.1:port``, no trailing slash; on another node ``https://host:port/r/<replica id>``."""
    api_key: str
    """The engine's key, made for this launch; never shown to clients. Empty on another node, which adds it itself."""
    server_name: str = ""
    """The name in the certificate of the other node; empty: the engine is on this one."""


@dataclass(frozen=True, slots=True)
class Crash:
    """The end of a replica's engine that the server did not request."""

    replica_id: str
    code: str
    """The code of the error for the requests that it had."""


@dataclass(frozen=True, slots=True)
class Route:
    """The data of the gateway on one deployment or one of its adapters.

    `targets` is empty unless at least one replica is ready. Without targets, `stage` names the current stage of the
    launch, and `problem` is set if the launch has failed.
    """

    uid: str
    """The value of ``model`` in requests."""
    engine: str
    """The engine's display name, a key of `engines.dialects.DIALECTS`; empty for a broken deployment."""
    model_type: Literal["LLM", "embedding", "rerank"]
    model_name: str
    """Name of the model's family."""
    context_length: int | None
    """Longest prompt in tokens; None: not known yet."""
    created: float
    """Time of the launch in seconds since the epoch."""
    targets: tuple[Target, ...] = ()
    stage: str = "pending"
    problem: Problem | None = None
    recovering: bool = False
    """The deployment was ready before and is being restarted: a request may wait."""
    unloaded: bool = False
    """A user has unloaded the model: requests are refused until it is loaded again."""
    on_demand: bool = False
    """A request loads the model: `Router.ensure_ready` waits until it is loaded."""
    retry_after: int = 5
    """Seconds after which a client may retry."""
    paths: frozenset[str] = frozenset()
    """Request paths that the engine serves, such as ``/v1/chat/completions``."""
    aliases: tuple[str, ...] = ()
    """Further names of the deployment; the table has this route under each of them, too."""
    adapters: tuple[str, ...] = ()
    """Names of the deployment's LoRA adapters; each of them has its own route."""
    parent: str | None = None
    """The deployment's uid if this is the route of an adapter."""
    request_limits: int | None = None
    """Maximum number of concurrent requests; None: no limit."""
    max_output_tokens: int | None = None
    """Maximum number of tokens of each answer; None: no limit."""
    max_request_seconds: float | None = None
    """Maximum time that an engine spends on one request; None: no limit."""
    slots: int = 0
    """Number of requests that one replica computes at the same time; 0: not known."""
    stop: tuple[str, ...] = ()
    """Texts that end a chat's answer; a request may override them."""
    stop_token_ids: tuple[int, ...] = ()
    """Token ids that end a chat's answer, in addition to the tokenizer's own end tokens."""
    tools_refused: str | None = None
    """Why the model can't choose a tool itself, with the way out; None: the engine reads its calls."""
    crashes: tuple[Crash, ...] = ()
    """The crashes of the last replicas, oldest first."""
    state_bytes: int = 0
    """Maximum size of the saved states of prompts in memory; 0: the engine saves none."""


@dataclass(frozen=True)
class RoutingTable:
    """The routes of all deployments, adapters and aliases by name, and the encoded answer of ``GET /v1/models``."""

    routes: Mapping[str, Route] = field(default_factory=lambda: MappingProxyType({}))
    listing: bytes = b'{"object":"list","data":[]}'


def with_other_names(deployments: Mapping[str, Route]) -> dict[str, Route]:
    """The routes of deployments by uid, then those of adapters and aliases by name. A uid overrides the other names.

    An alias has the route of its deployment: a request for it is a request for the deployment.
    """
    routes = dict(deployments)
    for uid, route in deployments.items():
        for name in route.adapters:
            routes.setdefault(name, replace(route, uid=name, parent=uid, adapters=(), aliases=()))
        for name in route.aliases:
            routes.setdefault(name, route)
    return routes


def owner_of(name: str, route: Route) -> str | None:
    """The uid of the deployment if `name` is another name of it, an adapter's or an alias, else None."""
    return route.parent or (None if name == route.uid else route.uid)
