"""`xinference cluster`: the nodes of a cluster, and the tokens with which machines join it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.json_option import json_option
from xinference.cli.options.numbers import IntegerRange, NumberRange
from xinference.cli.output import note, print_json, size, write
from xinference.cli.table import print_table
from xinference.hosts import host_in_url, is_loopback

Json = dict[str, Any]


@click.group()
def cluster() -> None:
    """Show and change the machines of a cluster."""


@cluster.command("info")
@json_option
@with_server_options
def info(target: Target, as_json: bool) -> None:
    """Show the nodes with their replicas."""
    _show_nodes(target, as_json)


@cluster.command("nodes", hidden=True)
@json_option
@with_server_options
def nodes(target: Target, as_json: bool) -> None:
    """The same as `info`."""
    _show_nodes(target, as_json)


def _show_nodes(target: Target, as_json: bool) -> None:
    with target.connect() as client:
        found = client.cluster_nodes()
    if as_json:
        print_json(found)
        return
    header = ("Node", "Name", "State", "Address", "CPUs", "Memory", "GPUs", "Replicas", "Version")
    print_table(header, [_row(node) for node in found], optional=("Version", "CPUs"))
    for node in found:
        if node["lost_in"] is not None and node["state"] == "UNREACHABLE":
            note(f"{node['node_id']}: its replicas are started on other nodes in {node['lost_in']:.0f} s.")
    if not [node for node in found if node["node_id"] != "local"]:
        note("No worker has joined. `xinference cluster token create` prints the command that joins one.")


def _row(node: Json) -> list[Any]:
    total, free = node["memory_total"], node["memory_available"]
    memory = None if total is None else f"{size(free)} of {size(total)} free"
    gpus = node["gpus"]
    return [
        node["node_id"],
        node["name"],
        node["state"],
        node["address"],
        node["cpu_count"],
        memory,
        f"{len(gpus)} x {gpus[0]['name']}" if gpus else None,
        ", ".join(node["replicas"]) or None,
        node["version"],
    ]


@cluster.command("ray")
@json_option
@with_server_options
def ray(target: Target, as_json: bool) -> None:
    """Show the nodes of Ray with their workers."""
    with target.connect() as client:
        found = client.ray_cluster()
    if as_json:
        print_json(found)
        return
    if found["problem"] is not None:
        note(f"{found['problem']['message']} {found['problem']['hint'] or ''}".rstrip())
    rows = [_ray_row(node) for node in found["nodes"]]
    print_table(("Ray node", "Name", "Address", "CPUs", "GPUs", "Node", "State"), rows)
    for node in found["nodes"]:
        if node["problem"] is not None:
            note(f"{node['ray_node'][:12]}: {node['problem']}.")
    if found["wanted"]:
        note(f"Ray's autoscaler was asked for a node for {', '.join(found['wanted'])}.")


def _ray_row(node: Json) -> list[Any]:
    has = node["resources"]
    counts = [f"{has[name]:g}" if has.get(name) else None for name in ("CPU", "GPU")]
    return [node["ray_node"][:12], node["name"], node["address"], *counts, node["node_id"], node["state"]]


@cluster.command("drain")
@click.argument("node")
@json_option
@with_server_options
def drain(target: Target, node: str, as_json: bool) -> None:
    """Move all replicas of NODE to other nodes.

    NODE gets no new replicas. Each of its replicas is first started on another node. Then the replica on NODE finishes
    its running requests and is stopped.
    """
    with target.connect() as client:
        _say(
            client.drain_node(node),
            "is drained. `xinference cluster undrain` allows new replicas on it again.",
            as_json,
        )


@cluster.command("undrain")
@click.argument("node")
@json_option
@with_server_options
def undrain(target: Target, node: str, as_json: bool) -> None:
    """Allow new replicas on NODE again."""
    with target.connect() as client:
        _say(client.undrain_node(node), "accepts replicas again.", as_json)


@cluster.command("upgrade")
@click.argument("node")
@json_option
@with_server_options
def upgrade(target: Target, node: str, as_json: bool) -> None:
    """Restart the worker of NODE with the version installed there.

    Its engines keep running, and no model is loaded again. Install the new version on NODE first.
    """
    with target.connect() as client:
        found = client.upgrade_node(node)
    engines = f"its {len(found['replicas'])} engines kept running" if found["replicas"] else "it has no engines"
    _say(found, f"runs Xinference {found['version']}; {engines}.", as_json)


@cluster.command("remove")
@click.argument("node")
@json_option
@with_server_options
def remove(target: Target, node: str, as_json: bool) -> None:
    """Remove NODE from the cluster permanently.

    Its engines are stopped, its certificate is refused, and its replicas are started on other nodes.
    """
    with target.connect() as client:
        _say(client.remove_node(node), "is removed.", as_json)


def _say(node: Json, what: str, as_json: bool) -> None:
    if as_json:
        print_json(node)
    else:
        note(f"The node {node['node_id']} ({node['name']}) {what}")


@cluster.group("token")
def token() -> None:
    """Create, list and revoke join tokens."""


@token.command("create")
@click.option(
    "--hours",
    type=NumberRange(0, 24 * 365, min_open=True),
    default=24.0,
    show_default=True,
    help="Hours for which the token is valid.",
)
@click.option(
    "--uses",
    type=IntegerRange(1, 100_000),
    default=1,
    show_default=True,
    help="Number of machines that may join with it.",
)
@click.option("--any-number", is_flag=True, help="Any number of machines may join with it.")
@json_option
@with_server_options
def create(target: Target, hours: float, uses: int, any_number: bool, as_json: bool) -> None:
    """Create a token, and print the command that joins a machine."""
    with target.connect() as client:
        made = client.create_join_token(hours, None if any_number else uses)
    made["command"] = made["command"].replace("HOST", _host_of(target))
    if as_json:
        print_json(made)
        return
    note("Run this on the machine that is to join:")
    write(f"{made['command']}\n")
    if "HOST:" in made["command"]:
        note("Replace HOST by the address at which that machine reaches the supervisor.")


def _host_of(target: Target) -> str:
    """The host of the server's URL, as another machine uses it; ``HOST`` if only this machine can use it."""
    host = urlsplit(target.settings.url).hostname or ""
    return "HOST" if not host or is_loopback(host) else host_in_url(host)


@token.command("list")
@json_option
@with_server_options
def list_tokens(target: Target, as_json: bool) -> None:
    """List the tokens, without their secrets."""
    with target.connect() as client:
        tokens = client.list_join_tokens()
    if as_json:
        print_json(tokens)
        return
    rows = [[each["token_id"], _time(each["expires"]), _uses(each), _state(each)] for each in tokens]
    print_table(("Token", "Expires", "Uses left", "Status"), rows)


@token.command("revoke")
@click.argument("token_id")
@with_server_options
def revoke(target: Target, token_id: str) -> None:
    """Revoke a token, so that no further machine can join with it."""
    with target.connect() as client:
        client.revoke_join_token(token_id)
    note(f"The token {token_id} is revoked. Nodes that have joined with it remain in the cluster.")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _uses(row: Json) -> str:
    return "any number" if row["uses_left"] is None else str(row["uses_left"])


def _state(row: Json) -> str:
    if row["revoked"]:
        return "revoked"
    return "expired" if row["expires"] <= datetime.now().timestamp() else "active"
