"""Settings: every environment variable, once, with its meaning and default."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from xinference.errors import Problem, bad_request

ENV_PREFIX = "XINFERENCE_"
#: Longest path a Unix socket may have (108 bytes on Linux, 104 on macOS, with the final NUL).
MAX_SOCKET_PATH = 100
#: Gateway processes; more than a machine has cores are of no use.
MOST_WORKERS = 64


Bytes = int
_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """What the server and the command line may be told from outside.

    Each field is read from ``XINFERENCE_<NAME>``; the flags of `xinference serve` win over it.
    """

    home: Path = field(default_factory=lambda: Path.home() / ".xinference")
    """Folder of everything we keep: store, cache, logs."""
    host: str = "127.0.0.1"
    """Address the server listens on."""
    port: int = 9997
    """Port the server listens on."""
    endpoint: str = ""
    """URL that client commands talk to; empty: ``http://host:port``."""
    model_src: str = ""
    """Hub to prefer: huggingface, modelscope or package_index; empty: choose."""
    offline: bool = False
    """Open no connection to any hub or index."""
    grace_seconds: float = 60.0
    """How long an engine outlives a dead server, waiting to be taken back."""
    stop_seconds: float = 10.0
    """How long an engine may take to end before it is killed."""
    drain_seconds: float = 30.0
    """How long a replica that is removed may go on with the answers it has begun before it is ended."""
    start_seconds: float = 600.0
    """How long an engine may take to become healthy."""
    recover_seconds: float = 30.0
    """How long a request waits for a crashed engine to come back before it is told 503."""
    on_demand_wait_seconds: float = 120.0
    """How long a request waits for a model that is loaded on demand before it is told 503."""
    on_demand_ttl_seconds: float = 300.0
    """How long a model on demand stays without a request, unless its launch says it; 0: until its room is needed."""
    on_demand_turn_seconds: float = 5.0
    """How long a model in use keeps its room at least, when another one waits for it and nobody is idle."""
    on_demand_queue: int = 256
    """Most requests that wait for one model to be loaded; those beyond are told 429."""
    model_memory: Bytes = 0
    """Most of the host's memory for all models together, such as 24GiB; 0: what is free."""
    restart_backoff_seconds: float = 1.0
    """Wait before the second restart in a row; doubles each time."""
    restart_limit: int = 3
    """Quick deaths in a row after which a deployment is FAILED."""
    quick_death_seconds: float = 60.0
    """An engine that dies sooner than this after its start died quickly."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Largest request body taken on the data path."""
    log_bytes: int = 8 * 1024 * 1024
    """Most bytes kept of one engine's output."""
    allow_unauthenticated: bool = False
    """Allow listening beyond loopback without any key."""
    gateway_workers: int = 1
    """Processes that serve requests on the port; 1: the server itself does."""
    log_level: str = "INFO"
    """Server's own log level."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
        """Settings from the environment, with `overrides` (None means not given) on top.

        Raises:
            Problem: 400, naming the variable, its value and what it must be.
        """
        values: dict[str, Any] = {}
        for f in fields(cls):
            raw = env.get(ENV_PREFIX + f.name.upper())
            if raw not in (None, ""):
                values[f.name] = _parse(f.name, str(f.type), str(raw))
        values.update({name: value for name, value in overrides.items() if value is not None})
        if "home" in values:
            values["home"] = Path(values["home"]).expanduser().absolute()
        settings = cls(**values)
        if not 0 <= settings.port <= 65535:
            raise bad_request(f"port {settings.port} is not a port.", hint="Use a number from 1 to 65535.")
        if not 1 <= settings.gateway_workers <= MOST_WORKERS:
            raise bad_request(
                f"gateway_workers is {settings.gateway_workers}.", hint=f"Use a number from 1 to {MOST_WORKERS}."
            )
        return settings

    @property
    def url(self) -> str:
        """Endpoint for clients, without a trailing slash."""
        if self.endpoint:
            return self.endpoint.rstrip("/")
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 -- compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def cache_dir(self) -> Path:
        return self.home / "cache"

    @property
    def log_dir(self) -> Path:
        return self.home / "logs"

    @property
    def server_file(self) -> Path:
        """Where this home's server says where it listens, while it runs."""
        return self.home / "server.json"

    @property
    def owner_key_file(self) -> Path:
        """The key of whoever may read this home, while its server runs."""
        return self.home / "owner.key"

    @property
    def run_dir(self) -> Path:
        """Folder for sockets and the server's lock, short enough for a Unix socket's path.

        A deep home gets a private folder under the system's temporary one instead, named by the home's hash.
        """
        short = self.home / "run"
        if len(os.fsencode(short)) + 40 <= MAX_SOCKET_PATH:
            return short
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"xinference-{os.getuid()}-{digest}"


_KINDS = {"bool": "a boolean", "Bytes": "a number of bytes, such as 24GiB"}


def _parse_bytes(raw: str) -> int:
    found = _SIZE.fullmatch(raw.strip())
    if found is None:
        raise ValueError(raw)
    return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


def _parse(name: str, kind: str, raw: str) -> Any:
    try:
        match kind:
            case "int":
                return int(raw)
            case "Bytes":
                return _parse_bytes(raw)
            case "float":
                return float(raw)
            case "bool":
                return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[raw.lower()]
            case _:
                return raw
    except (ValueError, KeyError):
        raise Problem(
            "bad_setting",
            400,
            f"{ENV_PREFIX}{name.upper()} is {raw!r}, which is not {_KINDS.get(kind, f'a {kind}')}.",
            hint=f"Correct it or unset {ENV_PREFIX}{name.upper()}.",
        ) from None
