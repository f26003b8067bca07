"""The settings: all environment variables with their meanings and defaults."""

from __future__ import annotations

import difflib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import host_in_url, server_url
from xinference.setting_values import BYTES, PARSERS, check_settings, parse_host, parse_setting

#: The data folder, in the home folder of the user.
DEFAULT_HOME = ".xinference"
ENV_PREFIX = "XINFERENCE_"
#: From this ratio on, a variable is a misspelled setting: two letters in the wrong order of a word of four.
SIMILAR = 0.75
#: Maximum length of a Unix socket's path (108 bytes on Linux, 104 on macOS, with the final NUL).
MAX_SOCKET_PATH = 100
#: The beginning of the names of folders for sockets in the system's temporary folder; the user's number follows.
RUN_DIR_PREFIX = "xinference-"


@dataclass(frozen=True)
class Settings:
    """Settings of the server and the command line.

    Each field is read from ``XINFERENCE_<NAME>``; the flags of `xinference serve` override it.
    """

    home: Path = field(default_factory=lambda: Path.home() / DEFAULT_HOME)
    """Data folder: database, caches and logs."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 9997
    """Port to listen on; 0: any free port. If it is not set and 9997 is in use, the next free port is taken."""
    endpoint: str = ""
    """URL that client commands connect to; empty: ``http://host:port``."""
    model_src: str = ""
    """Preferred hub: huggingface, modelscope or package_index; empty: chosen automatically."""
    shared_cache: str = ""
    """Folder with the caches of another machine, such as a mounted volume. Its weights are used in place, and nothing
    is written there. Empty: none."""
    offline: bool = False
    """Never connect to a hub or package index."""
    catalog_source: str = ""
    """Default source of updates of the catalog: a package, or an ``https:`` address with ``#sha256=…`` at its end;
    empty: each update must name its source."""
    hub_seconds: float = 60.0
    """Maximum seconds for all requests to hubs that one launch or download needs; the download itself has no limit."""
    grace_seconds: float = 60.0
    """Seconds that an engine keeps running after its server has ended, so that the next server can take it over."""
    stop_seconds: float = 10.0
    """Seconds that an engine may take to stop; then it is killed."""
    drain_seconds: float = 20.0
    """Seconds that running requests have to finish when the server stops, or when their replica is removed."""
    start_seconds: float = 600.0
    """Seconds that an engine may take to start."""
    probe_seconds: float = 20.0
    """Seconds between two probes of an engine that has requests in flight. Its main loop must answer each probe."""
    hung_seconds: float = 60.0
    """Seconds that an engine may take to answer a probe; then it is killed and restarted. 0: engines are never
    probed."""
    hung_computing_seconds: float = 1800.0
    """The same limit, in seconds, while the engine computes with several threads or reads from the disk, as it does
    with a long prompt on a slow processor."""
    engine_memory_margin: int = field(default=2 << 30, metadata={"parser": BYTES})
    """Host memory that an engine may use above 125 % of its plan; if it uses more, it is killed and restarted. In bytes
    or with a unit such as 2GiB; 0: no limit. Linux only."""
    recover_seconds: float = 30.0
    """Seconds that a request waits for a crashed engine to restart; then it gets a 503."""
    on_demand_wait_seconds: float = 120.0
    """Seconds that a request waits for an on-demand model to load; then it gets a 503."""
    on_demand_ttl_seconds: float = 300.0
    """Idle seconds after which an on-demand model is unloaded, unless its launch sets ``ttl``; 0: only when another
    model needs the memory."""
    on_demand_turn_seconds: float = 5.0
    """Minimum seconds that a busy on-demand model stays loaded while another model waits for its memory."""
    on_demand_queue: int = 256
    """Maximum number of requests that wait for one model to load; further requests get a 429."""
    model_memory: int = field(default=0, metadata={"parser": BYTES})
    """Maximum host memory for all models together, in bytes or with a unit such as 24GiB; 0: all free memory."""
    restart_backoff_seconds: float = 1.0
    """Seconds before the second restart in a row; they double with each further restart."""
    restart_limit: int = 3
    """Maximum number of crashes in a row shortly after the start; after one more, the model has failed."""
    quick_death_seconds: float = 60.0
    """A crash counts for the restart limit if it happens within this number of seconds after the start."""
    max_body_bytes: int = field(default=64 * 1024 * 1024, metadata={"parser": BYTES})
    """Maximum size of a request body on inference routes, in bytes."""
    max_bodies_bytes: int = field(default=1 << 30, metadata={"parser": BYTES})
    """Maximum size of all request bodies above 256 KiB together, in bytes, for each gateway process; a request beyond
    it gets a 503."""
    head_seconds: float = 10.0
    """Seconds that a client may take for the headers of a request, and for the first byte on a new connection."""
    body_seconds: float = 30.0
    """Seconds that a client may take between two pieces of a request's body."""
    write_seconds: float = 30.0
    """Seconds that a client may read less than 1,024 bytes per second of its answer; then its connection is closed."""
    idle_seconds: float = 75.0
    """Seconds that a connection stays open between two requests. Set more than the same limit of the proxy in front of
    the server, which is often 60."""
    max_connections: int = 8192
    """Maximum number of client connections for each gateway process; fewer if the system permits fewer file
    descriptors."""
    max_waiting_connections: int = 1024
    """Maximum number of connections from one address without a complete request, for each gateway process."""
    max_queued_requests: int = 1024
    """Maximum number of requests that wait for a slot of one model, for each gateway process; further requests get a
    429."""
    key_requests_in_flight: int = 0
    """Maximum number of requests in flight for each key without a limit of its own; 0: no limit."""
    allow_unauthenticated: bool = False
    """Allow other machines to use the server without an API key."""
    allow_origin: str = ""
    """Origins whose web pages may send requests and read the answers, separated by commas, such as
    ``http://localhost:3000``; ``*``: every origin. Empty: none."""
    allowed_origins: str = ""
    """Addresses at which a reverse proxy serves this server, separated by commas, such as ``https://ai.example.org``.
    A server on loopback accepts them as `Host` and `Origin`."""
    session_idle_seconds: float = 43200.0
    """Seconds without a request after which a browser's session ends."""
    session_seconds: float = 604800.0
    """Maximum seconds that a browser's session lasts."""
    allow_media_urls: str = ""
    """Hosts from which the server downloads images that a request names by an ``https:`` address, separated by commas,
    such as ``example.com`` or ``*.example.com``; a port other than 443 follows a colon; ``*``: every public host.
    Empty: none."""
    media_url_bytes: int = field(default=20 << 20, metadata={"parser": BYTES})
    """Maximum size of a downloaded image, in bytes."""
    media_url_seconds: float = 20.0
    """Seconds that the download of an image may take."""
    gateway_workers: int = 1
    """Number of processes that serve requests on the port; 1: the server's own."""
    shared_beginnings: bool = True
    """Compute the common beginning of several prompts only once, on engines that can save the state of a slot. Only
    with one gateway process."""
    shared_wait_seconds: float = 600.0
    """Maximum seconds that a request waits while another one computes the beginning of its prompt."""
    kept_state_bytes: int = field(default=1 << 30, metadata={"parser": BYTES})
    """Maximum size of the saved states of each model on the disk, in bytes or with a unit such as 2GiB; 0: none."""
    prefix_isolation: str = "none"
    """Which requests share the computed beginnings of prompts. none: all requests to a model; key: only requests with
    the same key, so that response times do not reveal the prompts of other keys."""
    log_bytes: int = field(default=8 * 1024 * 1024, metadata={"parser": BYTES})
    """Maximum size of each engine's log, in bytes."""
    log_level: str = "INFO"
    """Log level of the server: DEBUG, INFO, WARNING or ERROR."""
    log_format: str = "text"
    """Format of the server's log: text, or json for one object in each line."""
    metrics_per_key: bool = False
    """Show the requests and tokens of each key in ``/metrics``, by the key's id: at most 1,000 keys."""
    access_log: bool = False
    """Log each request with its client, key, path, status and seconds."""
    cluster: bool = False
    """Let workers on other machines join this server, and run models on them."""
    supervisor_port: int = 9999
    """Port to which workers connect; 0: any free port."""
    worker_port: int = 9998
    """Port of a worker for the requests of its models; 0: any free port."""
    no_models: bool = False
    """Run no model on the supervisor's own machine, but only on workers."""
    node_lost_seconds: float = 30.0
    """Seconds that a worker may be out of reach; then its replicas are started on other machines."""
    ray_address: str = ""
    """Address of a running Ray cluster on whose nodes the supervisor starts workers: auto, HOST:PORT, or
    ray://HOST:PORT."""
    ray_nodes: str = ""
    """The only nodes of Ray to use, by id, host name, address or label as NAME=VALUE, separated by commas. Empty: all
    nodes that offer CPUs or GPUs."""
    ray_endpoint: str = ""
    """URL of this supervisor for the workers on the nodes of Ray. Empty: the address from which it connects to Ray."""
    ray_home: str = ""
    """Data folder of the workers on the nodes of Ray. Empty: ~/.xinference/ray/HOST there."""
    ray_autoscaler_seconds: float = 0.0
    """Seconds that a launch that fits on no node waits for a new node from Ray's autoscaler; 0: none is requested."""
    orphan_seconds: float = 3600.0
    """Seconds without a supervisor after which a worker stops its engines; 0: never."""

    @property
    def saves_states(self) -> bool:
        """Whether engines save the states of prompts. With several processes, each would have other slots in mind."""
        return self.shared_beginnings and self.gateway_workers == 1

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
        """Settings from the environment; `overrides` that are not None have precedence.

        Raises:
            Problem: 400, with the variable, its value and the expected kind of value.
        """
        values: dict[str, Any] = {}
        variables: dict[str, str] = {}
        types = get_type_hints(cls)
        for each in fields(cls):
            variable = ENV_PREFIX + each.name.upper()
            if (text := env.get(variable, "")).strip():
                parser = each.metadata.get("parser", PARSERS[types[each.name]])
                values[each.name] = parse_setting(variable, parser, text)
                if overrides.get(each.name) is None:
                    variables[each.name] = variable
        values.update({name: value for name, value in overrides.items() if value is not None})
        if "home" in values:
            values["home"] = Path(values["home"]).expanduser().absolute()
        if "host" in values:
            values["host"] = parse_host(values["host"])
        settings = cls(**values)
        check_settings(vars(settings), variables)
        return settings

    @property
    def url(self) -> str:
        """Endpoint for clients, without a trailing slash."""
        if self.endpoint:
            return server_url(self.endpoint)
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 -- it is compared, not bound
        return f"http://{host_in_url(host)}:{self.port}"

    def make_home(self) -> None:
        """Make the home folder, which only the user can read, unless it exists.

        Raises:
            Problem: the folder can't be made.
        """
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            reason = "a file has this name" if isinstance(error, FileExistsError) else error.strerror
            raise Problem(
                Code.CANNOT_WRITE,
                f"The home folder {self.home} can't be made: {reason}.",
                hint="Set XINFERENCE_HOME to a folder that you may write to.",
            ) from error

    @property
    def cache_dir(self) -> Path:
        return self.home / "cache"

    @property
    def log_dir(self) -> Path:
        return self.home / "logs"

    @property
    def compiled_dir(self) -> Path:
        """Folder of the code that engines compile."""
        return self.home / "compiled"

    @property
    def identity_dir(self) -> Path:
        """Folder of this machine's certificate in its cluster."""
        return self.home / "cluster" / "identity"

    @property
    def server_file(self) -> Path:
        """Announces the endpoint of this home's running server."""
        return self.home / "server.json"

    @property
    def owner_key_file(self) -> Path:
        """The owner's key of this home's running server."""
        return self.home / "owner.key"

    @property
    def run_dir(self) -> Path:
        """Folder for sockets and the server's lock; its path is short enough for a Unix socket.

        For a home with a long path it is a private folder in the system's temporary folder, named by the home's hash.
        """
        short = self.home / "run"
        if len(os.fsencode(short)) + 40 <= MAX_SOCKET_PATH:
            return short
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"{RUN_DIR_PREFIX}{os.getuid()}-{digest}"


def misspelled(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that are no setting, but resemble one: that one by the variable."""
    names = {f"{ENV_PREFIX}{each.name.upper()}": each.name for each in fields(Settings)}
    found = {}
    for variable in sorted(env):
        if variable.startswith(ENV_PREFIX) and variable not in names:
            name = variable.removeprefix(ENV_PREFIX).lower()
            if close := difflib.get_close_matches(name, names.values(), n=1, cutoff=SIMILAR):
                found[variable] = f"{ENV_PREFIX}{close[0].upper()}"
    return found
