"""What each request needs of its key: a table of paths. What is not in it needs ``manage``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from xinference.gateway.routes import DATA_PATHS


class Need(Enum):
    """What a request needs of its key."""

    NOTHING = "nothing"
    """Open: it tells nothing but that a server is here, or gives nothing without a key in the request itself."""
    ASK = "ask"
    """``use``: a model computes. Which one, the body says."""
    READ = "read"
    """``use`` or ``manage``. A key of certain models sees those only."""
    OVERSEE = "oversee"
    """``manage``, or ``use`` of all models: it tells what the whole server does."""
    MANAGE = "manage"
    """``manage``."""


@dataclass(frozen=True)
class Access:
    """What one request needs."""

    need: Need
    model: str | None = None
    """The model whose state the path asks for."""


OPEN = frozenset({("GET", "/health"), ("GET", "/v1/cluster/auth"), ("POST", "/token")})
#: GET paths that say what could be launched, which models run (the key's only), or what the API is.
READ = frozenset(
    {
        "/v1/models",
        "/v1/models/instances",
        "/v1/models/prompts",
        "/v1/models/families",
        "/v1/models/vllm-supported",
        "/v1/address",
        "/v1/cluster/version",
        "/anthropic/v1/models",
        "/docs",
        "/redoc",
        "/openapi.json",
    }
)
OVERSEE = frozenset({"/status", "/metrics", "/v1/cluster/devices", "/v1/cluster/info", "/v1/workers", "/v1/supervisor"})
#: GET paths about what can be launched.
_CATALOG = re.compile(
    r"/v1/(engines/[^/]+(/[^/]+)?|model_registrations/[^/]+(/[^/]+)?|models/[^/]+/[^/]+/versions)", re.DOTALL
)
#: GET paths about one model that runs. Not its log: that may hold what others asked.
_ABOUT = re.compile(r"(?:/anthropic)?/v1/models/([^/]+)(?:/(?:events|progress|replicas|instances))?", re.DOTALL)
#: POST paths about one model's requests.
_ABORT = re.compile(r"/v1/models/([^/]+)/requests/[^/]+/abort", re.DOTALL)

_OPEN = Access(Need.NOTHING)
_ASK = Access(Need.ASK)
_READ = Access(Need.READ)
_OVERSEE = Access(Need.OVERSEE)
_MANAGE = Access(Need.MANAGE)


def needed(method: str, path: str) -> Access:
    """What a request of `method` to `path` (percent-decoded, as the routes match it) needs."""
    if path in DATA_PATHS:
        return _ASK
    if method == "HEAD":
        method = "GET"
    if (method, path) in OPEN:
        return _OPEN
    if method == "POST" and (abort := _ABORT.fullmatch(path)):
        return Access(Need.READ, abort[1])
    if method != "GET":
        return _MANAGE
    if path in READ or _CATALOG.fullmatch(path):
        return _READ
    if path in OVERSEE:
        return _OVERSEE
    about = _ABOUT.fullmatch(path)
    return Access(Need.READ, about[1]) if about else _MANAGE
