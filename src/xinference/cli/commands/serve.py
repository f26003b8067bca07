"""`xinference serve`, and the programs that start a server in older versions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import click

from xinference.cli.connection import Target, note_restored
from xinference.cli.options.labels import labels_of
from xinference.cli.options.log_level import LOG_LEVEL
from xinference.cli.options.numbers import IntegerRange, NumberRange
from xinference.cli.output import note
from xinference.config import Settings
from xinference.errors import bad_request
from xinference.gc_pause import without_collections
from xinference.server_options import ServerOptions
from xinference.setting_values import MAX_GATEWAY_WORKERS

_PROGRAM = {"help_option_names": ["-h", "--help"]}


def with_listen_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every program that starts a server."""
    for option in (
        click.option(
            "--allow-unauthenticated", is_flag=True, help="Allow other machines to use the server without an API key."
        ),
        click.option("--log-level", type=LOG_LEVEL, help="Log level of the server. [default: INFO]"),
        click.option("-p", "--port", type=IntegerRange(0, 65535), help="Port to listen on. [default: 9997]"),
    ):
        command = option(command)
    return command


def _refuse_auth_config(ctx: click.Context, param: click.Parameter, file: str | None) -> None:
    if file is not None:
        raise click.BadParameter(
            "users are no longer read from a file. Create keys instead, see `xinference keys --help`."
        )


_host_option = click.option("-H", "--host", help="Address to listen on. [default: 127.0.0.1]")
_auth_config = click.option(
    "--auth-config", metavar="FILE", callback=_refuse_auth_config, expose_value=False, hidden=True
)
_metrics_host = click.option("-MH", "--metrics-exporter-host", hidden=True)


@click.command()
@_host_option
@with_listen_options
@click.option(
    "--home", type=click.Path(file_okay=False), help="Data folder: database, caches and logs. [default: ~/.xinference]"
)
@click.option(
    "--gateway-workers",
    type=IntegerRange(1, MAX_GATEWAY_WORKERS),
    help="Number of processes that serve requests. [default: 1]",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    metavar="ORIGIN",
    multiple=True,
    help="Allow web pages of this origin, such as http://localhost:3000, to use the server; *: every origin. "
    "Repeatable.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Format of the server's log. [default: text]")
@click.option("--access-log", is_flag=True, help="Log each request with its client, key, path, status and seconds.")
@click.option(
    "--allow-media-urls",
    metavar="HOSTS",
    help="Hosts from which the server may fetch the images of requests, such as example.com,*.example.org; "
    "*: all public hosts.",
)
@click.option(
    "--prefix-isolation",
    type=click.Choice(["none", "key"]),
    help="key: a request reuses only the cached prompt prefixes of requests with the same key. [default: none]",
)
@click.option(
    "--no-shared-beginnings",
    is_flag=True,
    help="Do not save the computed beginnings of prompts for later requests.",
)
@click.option("--cluster", is_flag=True, help="Let workers on other machines join, as `xinference-supervisor` does.")
@click.option("--background", is_flag=True, help="Start the server in the background, and return when it is ready.")
def serve(
    host: str | None,
    port: int | None,
    log_level: str | None,
    allow_unauthenticated: bool,
    home: str | None,
    gateway_workers: int | None,
    allow_origins: tuple[str, ...],
    log_format: str | None,
    access_log: bool,
    allow_media_urls: str | None,
    prefix_isolation: str | None,
    no_shared_beginnings: bool,
    cluster: bool,
    background: bool,
) -> None:
    """Run the server in this terminal, or in the background."""
    if background and port == 0:
        raise click.UsageError("--background needs a fixed port: 0 is any free port.")
    options = ServerOptions(
        host=host,
        port=port,
        log_level=log_level,
        allow_unauthenticated=allow_unauthenticated,
        home=home,
        gateway_workers=gateway_workers,
        allow_origin=",".join(allow_origins) or None,
        log_format=log_format,
        access_log=access_log,
        allow_media_urls=allow_media_urls,
        prefix_isolation=prefix_isolation,
        no_shared_beginnings=no_shared_beginnings,
        cluster=cluster,
    )
    start = start_in_background if background else run
    start(options)


@click.command(context_settings=_PROGRAM)
@_host_option
@with_listen_options
@_metrics_host
@click.option("-mp", "--metrics-exporter-port", type=int, hidden=True)
@_auth_config
def local(
    host: str | None,
    port: int | None,
    log_level: str | None,
    allow_unauthenticated: bool,
    metrics_exporter_host: str | None,
    metrics_exporter_port: int | None,
) -> None:
    """Run the server in this terminal, as `xinference serve` does."""
    if metrics_exporter_host or metrics_exporter_port:
        note("--metrics-exporter-host and -port have no effect: the server itself has /metrics.")
    run(ServerOptions(host, port, log_level, allow_unauthenticated))


@click.command(context_settings=_PROGRAM)
@click.option("-H", "--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 -- older versions have this default, too
@with_listen_options
@click.option("--supervisor-port", type=IntegerRange(0, 65535), help="Port to which workers connect. [default: 9999]")
@click.option("--no-models", is_flag=True, help="Run models on workers only, and none on this machine.")
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Start workers on the nodes of this Ray cluster: auto, HOST:PORT or ray://HOST:PORT.",
)
@click.option(
    "--ray-node",
    "ray_nodes",
    metavar="NODE",
    multiple=True,
    help="Use only this node of Ray (its id, host name or address), or the nodes with the label NAME=VALUE. "
    "Repeatable.",
)
@click.option(
    "--ray-autoscaler-seconds",
    type=NumberRange(0),
    metavar="SECONDS",
    help="If no node has room for a launch, ask Ray's autoscaler for one, and wait this long. [default: 0, do not ask]",
)
@click.option(
    "--home", type=click.Path(file_okay=False), help="Data folder: database, caches and logs. [default: ~/.xinference]"
)
@_auth_config
def supervisor(
    host: str,
    port: int | None,
    log_level: str | None,
    allow_unauthenticated: bool,
    supervisor_port: int | None,
    no_models: bool,
    ray_address: str | None,
    ray_nodes: tuple[str, ...],
    ray_autoscaler_seconds: float | None,
    home: str | None,
) -> None:
    """Run a server in this terminal that workers on other machines can join."""
    options = ServerOptions(
        host,
        port,
        log_level,
        allow_unauthenticated,
        home,
        cluster=True,
        supervisor_port=supervisor_port,
        no_models=no_models,
        ray_address=ray_address,
        ray_nodes=",".join(ray_nodes) or None,
        ray_autoscaler_seconds=ray_autoscaler_seconds,
    )
    run(options)


@click.command(context_settings=_PROGRAM)
@click.option("-e", "--endpoint", metavar="URL", help="URL of the supervisor. Not needed once the machine has joined.")
@click.option("--token", help="Token of `xinference cluster token create`. Not needed once the machine has joined.")
@click.option(
    "-H",
    "--host",
    help="Address at which the other machines reach this one. [default: that of the connection to the supervisor]",
)
@click.option(
    "--worker-port",
    type=IntegerRange(0, 65535),
    help="Port at which the supervisor reaches the models of this machine. [default: 9998]",
)
@click.option("--serve", is_flag=True, help="Also serve clients on this machine, even while the supervisor is down.")
@click.option("-p", "--port", type=IntegerRange(0, 65535), help="With --serve: port for clients. [default: 9997]")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Label of this machine. Repeatable.")
@click.option("--home", type=click.Path(file_okay=False), help="Data folder. [default: ~/.xinference]")
@click.option("--log-level", type=LOG_LEVEL, help="Log level of the worker. [default: INFO]")
@click.option("--ends-with-supervisor", is_flag=True, hidden=True)
@_metrics_host
@click.option("--metrics-exporter-port", type=int, hidden=True)
def worker(
    endpoint: str | None,
    token: str | None,
    host: str | None,
    worker_port: int | None,
    serve: bool,
    port: int | None,
    labels: tuple[str, ...],
    home: str | None,
    log_level: str | None,
    ends_with_supervisor: bool,
    metrics_exporter_host: str | None,
    metrics_exporter_port: int | None,
) -> None:
    """Run models on this machine for a supervisor."""
    settings = Settings.from_env(home=home, log_level=log_level, worker_port=worker_port, port=port)
    import_module("xinference.nodes.cluster_packages").require_cluster_packages()
    with without_collections():
        program = import_module("xinference.worker")  # by name, as the server
    # An empty variable is no token: a compose file sets it so once all workers have joined.
    token = token or os.environ.get("XINFERENCE_JOIN_TOKEN") or None
    options = program.WorkerOptions(endpoint, token, host, labels_of(labels), serve, ends_with_supervisor)
    raise SystemExit(program.run(options, settings))


def start_in_background(options: ServerOptions) -> None:
    """Start a server as a process of its own, and print its URL once it answers.

    Raises:
        Problem: the server did not start.
    """
    from xinference.client.local_server import ensure_server, server_command

    settings = options.settings()
    settings = replace(settings, endpoint="")  # of another server
    command = [*server_command(settings), *options.words()]
    started = ensure_server(settings, lambda: None, command=command)
    log = settings.log_dir / "server.log"
    note(f"Started a server; its log is {log}. `xinference stop` ends it." if started else _runs_already(options))
    if started:
        with Target(settings, None).connect() as client:
            note_restored(client)
    click.echo(settings.url)


def _runs_already(options: ServerOptions) -> str:
    """The line about a server that answers already: `options` do not change it."""
    if options == ServerOptions(port=options.port, home=options.home):  # these two only choose the server
        return "A server runs already."
    return "A server runs already; it keeps the options with which it was started. `xinference stop` ends it."


def serve_from_options(host: str | None, port: int | None, log_level: str | None, subcommand: str | None) -> None:
    """`xinference -H HOST -p PORT` without a command starts a server, as in older versions."""
    if subcommand is not None:
        raise bad_request(
            "-H, -p and --log-level before a command are options of the server.",
            hint=f"For `{subcommand}`, give the URL of the server with --endpoint.",
        )
    note("Starting a server; the command for this is `xinference serve`.")
    run(ServerOptions(host, port, log_level))


def run(options: ServerOptions) -> None:
    """Serve until stopped."""
    # By name, because the command line must not import the server, except here.
    with without_collections():
        server = import_module("xinference.server").run
    raise SystemExit(server(options))
