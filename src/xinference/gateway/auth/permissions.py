"""The permission that each path requires. A path that is not in these tables requires ``manage``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from xinference.engines.listings import LISTINGS
from xinference.gateway.routes import DATA_PATHS, PROBES
from xinference.gateway.unserved_paths import unserved


class Need(Enum):
    """The permission that a request requires of its key."""

    NOTHING = "nothing"
    """Public: no key required."""
    ASK = "ask"
    """``use``: the request runs a model, which its body names."""
    READ = "read"
    """``use`` or ``manage``; the answer to a key of certain models contains those models only."""
    OWN = "own"
    """Any permission; the answer to a key without ``manage`` and ``monitor`` contains its own requests only."""
    OVERSEE = "oversee"
    """``manage``, ``monitor``, or ``use`` of all models: the answer concerns the whole server."""
    MANAGE = "manage"
    """``manage``."""


@dataclass(frozen=True)
class Access:
    """The permission that one request requires."""

    need: Need
    model: str | None = None
    """The model that the path names."""


OPEN = frozenset(
    {
        ("GET", "/v1/cluster/auth"),
        ("GET", "/v1/cluster/join"),
        ("POST", "/token"),
        ("POST", "/v1/sessions"),
        *(("GET", path) for path in PROBES),
    }
)
#: Other methods on what a key has made for itself.
OWN_CHANGES = frozenset({("DELETE", "/v1/sessions/current"), ("POST", "/v1/sessions/codes")})
#: GET paths of the catalog, of the running models that the key may see, and of the API's documentation.
READ = frozenset(
    {
        "/v1/models",
        "/v1/models/instances",
        "/v1/models/prompts",
        "/v1/models/families",
        *(listing.path for listing in LISTINGS),
        "/v1/address",
        "/v1/cluster/version",
        "/anthropic/v1/models",
        "/docs",
        "/redoc",
        "/openapi.json",
    }
)
OVERSEE = frozenset(
    {
        "/status",
        "/metrics",
        "/metrics/engines",
        "/v1/stats",
        "/v1/devices",
        "/v1/cluster/devices",
        "/v1/cluster/info",
        "/v1/cluster/nodes",
        "/v1/cluster/ray",
        "/v1/workers",
        "/v1/supervisor",
    }
)
#: GET paths of the requests to models, and of the key of the request; and the stream of changes.
OWN = frozenset({"/v1/sessions/current", "/v1/requests", "/v1/requests/active", "/v1/usage", "/v1/watch"})
#: GET paths of the catalog's entries, and of the progress of a request, which tells nothing about it.
_CATALOG = re.compile(
    r"/v1/(engines/[^/]+(/[^/]+)?|model_registrations/[^/]+(/[^/]+)?|models/[^/]+/[^/]+/versions"
    r"|requests/[^/]+/progress)",
    re.DOTALL,
)
#: GET paths of one running model. Not its log, which may contain the requests of others.
_ABOUT = re.compile(r"(?:/anthropic)?/v1/models/([^/]+)(?:/(?:events|progress|replicas|instances|engine))?", re.DOTALL)
#: GET paths of a model by its name: clients send names of repositories, too, which no model has here.
_NAME = re.compile(r"(?:/anthropic)?/v1/models/(?P<name>[^/]+(?:/(?P<part>[^/]+)(?:/.*)?)?)", re.DOTALL)
#: The parts of paths below that of a model. A test holds them to the routes of the management API.
MODEL_PARTS = frozenset(
    {
        *("aliases", "cancel", "engine", "events", "instances", "load", "logs", "progress", "reload", "replicas"),
        *("requests", "restart", "unload", "versions"),
    }
)
#: POST paths of one model's requests.
_ABORT = re.compile(r"/v1/models/([^/]+)/requests/[^/]+/abort", re.DOTALL)
_ABORT_OWN = re.compile(r"/v1/requests/[^/]+/abort", re.DOTALL)

#: The permission for each path of `DATA_PATHS`.
ASK = Access(Need.ASK)
_OPEN = Access(Need.NOTHING)
_READ = Access(Need.READ)
_OWN = Access(Need.OWN)
_OVERSEE = Access(Need.OVERSEE)
_MANAGE = Access(Need.MANAGE)


def required_access(method: str, path: str) -> Access:
    """The permission for a request of `method` to `path`, which is percent-decoded as the router matches it."""
    if path in DATA_PATHS or path.startswith("/v1/responses/") or unserved(path) is not None:
        return ASK
    if method == "HEAD":
        method = "GET"
    if (method, path) in OPEN:
        return _OPEN
    if method == "POST" and (abort := _ABORT.fullmatch(path)):
        return Access(Need.READ, abort[1])
    if method == "POST" and _ABORT_OWN.fullmatch(path):
        return _READ
    if (method, path) in OWN_CHANGES:
        return _OWN
    if method != "GET":
        return _MANAGE
    if path in READ or _CATALOG.fullmatch(path):
        return _READ
    if path in OWN:
        return _OWN
    if path in OVERSEE:
        return _OVERSEE
    about = _ABOUT.fullmatch(path)
    name = about[1] if about else described_model(path)
    return _MANAGE if name is None else Access(Need.READ, name)


def described_model(path: str) -> str | None:
    """The model that a GET of `path` describes, whether it runs or not; None: the path is another one."""
    named = _NAME.fullmatch(path)
    if named is None or path in READ or named["part"] in MODEL_PARTS or _CATALOG.fullmatch(path):
        return None
    return named["name"]
