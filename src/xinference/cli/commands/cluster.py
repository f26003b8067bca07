"""`xinference cluster`: the nodes of a cluster, and the tokens with which machines join it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.json_option import json_option
from xinference.cli.options.numbers import IntegerRange, NumberRange
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import local_time, note, print_json, size, write
from xinference.cli.table import print_table
from xinference.hosts import host_in_url, is_loopback, is_this_machine

Json = dict[str, Any]


@click.group()
def cluster() -> None:
    """Show and change the machines of a cluster."""


@cluster.command("info")
@wide_option
@json_option
@with_server_options
def info(target: Target, as_json: bool, wide: bool) -> None:
    """Show the nodes with their replicas."""
    _show_nodes(target, as_json, wide)


@cluster.command("nodes", hidden=True)
@wide_option
@json_option
@with_server_options
def nodes(target: Target, as_json: bool, wide: bool) -> None:
    """The same as `info`."""
    _show_nodes(target, as_json, wide)


def _show_nodes(target: Target, as_json: bool, wide: bool) -> None:
    with target.connect() as client:
        found = client.cluster_nodes()
    if as_json:
        print_json(found)
        return
    names = [name for name in _COLUMNS if name not in _WITH_VALUES or any(_COLUMNS[name](node) for node in found)]
    rows = [[_COLUMNS[name](node) for name in names] for node in found]
    print_table(names, rows, wide=wide, optional=("Version", "CPUs", "Labels", "Address"))
    for node in found:
        if node["lost_in"] is not None and node["state"] == "UNREACHABLE":
            note(
                f"{node['node_id']} ({node['name']}) is LOST in {node['lost_in']:.0f} s if it does not return. "
                "Replicas that other nodes may run are then started there."
            )
    if not [node for node in found if node["node_id"] != "local"]:
        note("No worker has joined. `xinference cluster token create` prints the command that joins one.")


def _memory(node: Json) -> str | None:
    """Free and total memory in one unit, which are not separated at the end of a line."""
    total, free = node["memory_total"], node["memory_available"]
    if total is None:
        return None
    (amount, unit), (whole, whole_unit) = size(free).split(" "), size(total).split(" ")
    return _NO_BREAK.join([amount, *([] if unit == whole_unit else [unit]), "of", whole, whole_unit])


def _gpus(node: Json) -> str | None:
    gpus = node["gpus"]
    return f"{len(gpus)} x {gpus[0]['name']}" if gpus else None


_NO_BREAK = "\N{NO-BREAK SPACE}"
_COLUMNS: dict[str, Callable[[Json], Any]] = {
    "Node": lambda node: node["node_id"],
    "Name": lambda node: node["name"],
    "State": lambda node: node["state"],
    "Address": lambda node: node["address"],
    "CPUs": lambda node: node["cpu_count"],
    "Free memory": _memory,
    "GPUs": _gpus,
    "Labels": lambda node: ", ".join(f"{name}={value}" for name, value in node["labels"].items()) or None,
    "Replicas": lambda node: ", ".join(node["replicas"]) or None,
    "Version": lambda node: node["version"],
}
#: The columns of which a table has none without a value.
_WITH_VALUES = frozenset({"GPUs", "Labels"})


@cluster.command("ray")
@wide_option
@json_option
@with_server_options
def ray(target: Target, as_json: bool, wide: bool) -> None:
    """Show the nodes of Ray with their workers."""
    with target.connect() as client:
        found = client.ray_cluster()
    if as_json:
        print_json(found)
        return
    if found["problem"] is not None:
        note(f"{found['problem']['message']} {found['problem']['hint'] or ''}".rstrip())
    rows = [_ray_row(node) for node in found["nodes"]]
    print_table(("Ray node", "Name", "Address", "CPUs", "GPUs", "Node", "State"), rows, wide=wide)
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
        found = client.drain_node(node)
    _say(found, f"gets no new replicas. {_left(found)} `xinference cluster undrain {node}` ends this.", as_json)


def _left(node: Json) -> str:
    """What happens to the replicas of a node that is drained."""
    count = len(node["replicas"])
    if not count:
        return "It has none."
    what = "Its replica moves" if count == 1 else f"Its {count} replicas move"
    return f"{what} to other nodes with room; `xinference cluster info` shows what is left."


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
    count = len(found["replicas"])
    engines = "it has no engines" if not count else f"its {count} engines kept running"
    engines = "its engine kept running" if count == 1 else engines
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
    help="Number of machines that may join with it.  [default: 1]",
)
@click.option("--any-number", is_flag=True, help="Any number of machines may join with it.")
@json_option
@with_server_options
def create(target: Target, hours: float, uses: int | None, any_number: bool, as_json: bool) -> None:
    """Create a token, and print the command that joins a machine."""
    if any_number and uses is not None:
        raise click.UsageError("--uses and --any-number exclude each other.")
    with target.connect() as client:
        made = client.create_join_token(hours, None if any_number else uses or 1)
    url, is_of_target = _url_of(target, made)
    made["command"] = _PLACEHOLDER.sub(url, made["command"])
    if as_json:
        print_json(made)
        return
    note("Run this on the machine that is to join:")
    write(f"{made['command']}\n")
    if "//HOST:" in url:
        note("Replace HOST by the address at which that machine reaches the supervisor.")
    elif is_loopback(urlsplit(url).hostname or ""):
        note(
            "The supervisor listens on this address only, which other machines cannot reach. For them, start it with "
            "`xinference-supervisor --host 0.0.0.0`."
        )
    elif not is_of_target:
        note("If that machine reaches the supervisor at another address, replace it.")


_PLACEHOLDER = re.compile(r"http://HOST:\d+")


def _url_of(target: Target, made: Json) -> tuple[str, bool]:
    """The URL of the supervisor for another machine, and whether it is the endpoint of this command.

    An endpoint on loopback is none for another machine: the supervisor gives its own address.
    """
    url = target.settings.url
    if not is_this_machine(urlsplit(url).hostname or ""):
        return url, True
    placeholder = _PLACEHOLDER.search(made["command"])
    host = made.get("host")
    if placeholder is None or not host:
        return "http://HOST:9997" if placeholder is None else placeholder[0], False
    return placeholder[0].replace("HOST", host_in_url(host)), False


@token.command("list")
@wide_option
@json_option
@with_server_options
def list_tokens(target: Target, as_json: bool, wide: bool) -> None:
    """List the tokens, without their secrets."""
    with target.connect() as client:
        tokens = client.list_join_tokens()
    if as_json:
        print_json(tokens)
        return
    rows = [[each["token_id"], local_time(each["expires"]), _uses(each), _state(each)] for each in tokens]
    print_table(("Token", "Expires", "Uses left", "Status"), rows, wide=wide)


@token.command("revoke")
@click.argument("token_id")
@with_server_options
def revoke(target: Target, token_id: str) -> None:
    """Revoke a token, so that no further machine can join with it."""
    with target.connect() as client:
        client.revoke_join_token(token_id)
    note(f"The token {token_id} is revoked. Nodes that have joined with it remain in the cluster.")


def _uses(row: Json) -> str:
    return "any number" if row["uses_left"] is None else str(row["uses_left"])


def _state(row: Json) -> str:
    if row["revoked"]:
        return "revoked"
    if row["expires"] <= datetime.now().timestamp():
        return "expired"
    return "used" if row["uses_left"] is not None and row["uses_left"] <= 0 else "active"
