"""`xinference list`, `terminate` and `logs`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

import click

from xinference.cli import model_figures, replica_nodes
from xinference.cli.connection import Target, with_server_options
from xinference.cli.interrupts import naming_what_continues
from xinference.cli.options.completion import complete_uid
from xinference.cli.options.json_option import json_option
from xinference.cli.options.numbers import IntegerRange
from xinference.cli.options.replica_name import ReplicaName, replica_name
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import duration, note, print_json, size_in_billions, write
from xinference.cli.table import print_table
from xinference.client.client import Client
from xinference.config import Settings

Json = dict[str, Any]


@click.command("list")
@click.option("--all", "shows_failed", is_flag=True, help="Include launches that failed before the model was ready.")
@wide_option
@json_option
@with_server_options
def list_models(target: Target, shows_failed: bool, as_json: bool, wide: bool) -> None:
    """List the launched models and their state."""
    with target.connect() as client:
        instances = client.list_instances()
        if shows_failed:
            instances += [_failed(r) for r in client.launch_history(failed=True) if r["ready_at"] is None]
        rates = {} if as_json else model_figures.newest_rates(client).models
        memory = {} if as_json else model_figures.memory_of_models(model_figures.devices_of(client))
    if as_json:
        print_json(instances)
        return
    instances = [model_figures.with_figures(instance, rates, memory) for instance in instances]
    columns = _wide(instances) if wide else _narrow(instances)
    now = time.time()
    rows = [[COLUMNS[name](instance, now) for name in columns] for instance in instances]
    print_table(columns, rows, wide=wide, optional=("Planned", "Age", "Context", "Engine"))
    if not instances:
        note("No model is launched. Launch one with `xinference launch NAME`.")
    for instance in instances:
        if problem := instance.get("problem"):
            note(f"{instance['model_uid']}: {problem['cause']}")
            continue
        for replica in instance.get("replicas") or ():
            if reason := replica.get("error_message"):
                note(f"{instance['model_uid']}: replica {replica['replica_id']}: {reason}")


def _failed(record: Json) -> Json:
    """A launch that never ran, in the form of an instance."""
    fields = {name: value for name, value in record["data"].items() if name.startswith(("model_", "quantization"))}
    created = datetime.fromisoformat(record["created_at"]).timestamp()
    return {**fields, "status": "FAILED", "problem": record["problem"], "instance_created_ts": int(created)}


def _version(instance: Json) -> str | None:
    """What the uid does not tell about the model."""
    name, uid = instance.get("model_name"), instance["model_uid"]
    parts = [
        name if not str(uid).startswith(str(name)) else None,
        size_in_billions(instance.get("model_size_in_billions")),
        instance.get("quantization"),
    ]
    return " ".join(str(part) for part in parts if part and part != "none") or None


def _until(instance: Json) -> str | None:
    """When the server unloads the model by itself."""
    if not instance.get("on_demand") or instance.get("status") == "UNLOADED":
        return None
    if instance.get("pin"):
        return "pinned"
    ttl = instance.get("ttl")
    return f"idle {duration(float(ttl))}" if ttl else "memory is short"


def _age(instance: Json, now: float) -> str | None:
    created = instance.get("instance_created_ts")
    return None if created is None else duration(max(0.0, now - float(created)))


#: Column -> its value for an instance at a time.
COLUMNS: Mapping[str, Callable[[Json, float], Any]] = {
    "UID": lambda instance, now: instance["model_uid"],
    "Type": lambda instance, now: instance.get("model_type"),
    "Name": lambda instance, now: instance.get("model_name"),
    "Version": lambda instance, now: _version(instance),
    "Engine": lambda instance, now: instance.get("model_engine"),
    "Format": lambda instance, now: instance.get("model_format"),
    "Size": lambda instance, now: size_in_billions(instance.get("model_size_in_billions")),
    "Quantization": lambda instance, now: instance.get("quantization"),
    "Context": lambda instance, now: instance.get("context_length"),
    "Memory": lambda instance, now: model_figures.measured_memory(instance),
    "Planned": lambda instance, now: instance[model_figures.PLANNED],
    "Replicas": lambda instance, now: model_figures.replicas(instance),
    "Node": lambda instance, now: replica_nodes.nodes_text(instance),
    "Requests": lambda instance, now: model_figures.in_flight(instance),
    "Tokens/s": lambda instance, now: model_figures.tokens_per_second(instance),
    "Age": _age,
    "Until": lambda instance, now: _until(instance),
    "Status": lambda instance, now: instance.get("status"),
}
WIDE = [name for name in COLUMNS if name not in ("Version", "Node")]


def _wide(instances: Sequence[Json]) -> list[str]:
    """The columns for a wide terminal: the node only if a replica is on a further machine."""
    if not any(map(replica_nodes.runs_elsewhere, instances)):
        return WIDE
    at = WIDE.index("Replicas") + 1
    return [*WIDE[:at], "Node", *WIDE[at:]]


def _narrow(instances: Sequence[Json]) -> list[str]:
    """The columns for a narrow terminal: those of replicas, nodes, requests and unloading only if necessary."""
    several = any(len(instance.get("replicas") or ()) > 1 for instance in instances)
    on_demand = any(instance.get("on_demand") for instance in instances)
    busy = any(any(instance[model_figures.RATES].values()) for instance in instances)
    planned = any(instance[model_figures.PLANNED] for instance in instances)
    elsewhere = any(map(replica_nodes.runs_elsewhere, instances))
    shown = {"UID": True, "Version": True, "Engine": True, "Context": True, "Memory": True, "Planned": planned,
        "Replicas": several, "Node": elsewhere, "Requests": busy, "Tokens/s": busy, "Age": True,
        "Until": on_demand, "Status": True}  # fmt: skip
    return [name for name, is_shown in shown.items() if is_shown]


@click.command()
@click.option("-u", "--model-uid", "option_uid", metavar="UID", shell_complete=complete_uid, help="The model's uid.")
@click.argument("uid", required=False, shell_complete=complete_uid)
@json_option
@with_server_options
def terminate(target: Target, option_uid: str | None, uid: str | None, as_json: bool) -> None:
    """Terminate the model UID, or cancel its launch."""
    uids = {name for name in (option_uid, uid) if name}
    if len(uids) != 1:
        raise click.UsageError("Give exactly one model: `xinference terminate UID`.")
    (model_uid,) = uids
    with target.connect() as client, naming_what_continues(f"The server continues to terminate {model_uid}."):
        client.terminate_model(model_uid)
    if as_json:
        print_json({"model_uid": model_uid, "terminated": True})
    note(f"Terminated {model_uid}.")


@click.command()
@click.argument("uid", required=False, shell_complete=complete_uid)
@click.option("-f", "--follow", is_flag=True, help="Continue to print new output.")
@click.option(
    "-n",
    "--lines",
    type=IntegerRange(min=0),
    default=40,
    show_default=True,
    help="Number of lines, counted from the end.",
)
@click.option(
    "--replica",
    type=ReplicaName(),
    metavar="N",
    help="Only this replica: its number, or its name as in rep0 or UID-rep0.",
)
@click.option("--server", "of_the_server", is_flag=True, help="Show the server's own log, not that of a model.")
@json_option
@with_server_options
def logs(
    target: Target,
    uid: str | None,
    follow: bool,
    lines: int,
    replica: tuple[str | None, int] | None,
    of_the_server: bool,
    as_json: bool,
) -> None:
    """Show the log of the model UID: the output of its engine.

    Without a running server, the last log is read from the data folder.
    """
    if of_the_server == (uid is not None) or (of_the_server and replica is not None):
        raise click.UsageError("Give a model, as in `xinference logs UID`, or --server.")
    if as_json and follow:
        raise click.UsageError("--json prints one complete document, so it cannot be used with --follow.")
    name = uid if uid is None or replica is None else replica_name(uid, *replica)

    def of_server(client: Client) -> str:
        pieces = (
            client.server_logs(lines=lines, follow=follow)
            if name is None
            else client.logs(name, lines=lines, follow=follow)
        )
        with closing(pieces):
            if as_json:
                return "".join(pieces)
            for piece in pieces:
                write(piece)
        return ""

    def without_server(settings: Settings) -> str:
        from xinference.local_commands.logs import engine_log, server_log

        text = server_log(settings, lines) if name is None else engine_log(settings, name, lines)
        note("No server runs; this is the last log." + (" There is nothing to follow." if follow else ""))
        return text

    text = target.ask(of_server, without_server)
    print_json({"model_uid": name, "lines": text.splitlines()}) if as_json else write(text)
