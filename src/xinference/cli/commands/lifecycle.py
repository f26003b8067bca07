"""`xinference unload`, `load`, `restart` and `reload` of a model, and `history`."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.interrupts import naming_what_continues
from xinference.cli.model_description import unloading
from xinference.cli.options.completion import complete_uid
from xinference.cli.options.json_option import json_option
from xinference.cli.options.native_options import LaunchCommand
from xinference.cli.options.numbers import NumberRange
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import duration, note, print_json
from xinference.cli.table import print_table
from xinference.config import Settings

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]

#: The line at Ctrl-C, with the action and the model.
_CONTINUES = "The server continues to {} {}; `xinference list` shows its state."


@click.command()
@click.argument("uid", shell_complete=complete_uid)
@json_option
@with_server_options
def unload(target: Target, uid: str, as_json: bool) -> None:
    """Stop the engine of the model UID, and free its memory.

    Running requests are finished first. The model stays in the list; `xinference load` starts it again.
    """
    with target.connect() as client, naming_what_continues(_CONTINUES.format("unload", uid)):
        description = client.unload_model(uid)
    print_json(description) if as_json else None
    again = "its next request loads it" if description.get("on_demand") else f"`xinference load {uid}` loads it again"
    note(f"Unloaded {uid}; {again}.")


@click.command()
@click.argument("uid", shell_complete=complete_uid)
@json_option
@with_server_options
def load(target: Target, uid: str, as_json: bool) -> None:
    """Start the model UID if it is unloaded or has failed, and return when it is ready."""
    with target.connect() as client:
        description = load_model(client, uid)
    print_json(description) if as_json else click.echo(uid)
    note(f"{uid} is ready.")


def load_model(client: Client, uid: str) -> Json:
    """The description of a model that was unloaded or has failed, once it is ready."""
    with naming_what_continues(_CONTINUES.format("load", uid)):
        return client.load_model(uid)


def restart_model(target: Target, uid: str, *, as_json: bool) -> None:
    """Restart one model, and return when it is ready."""
    with target.connect() as client, naming_what_continues(_CONTINUES.format("restart", uid)):
        description = client.restart_model(uid)
    print_json(description) if as_json else click.echo(uid)
    note(f"Restarted {uid}.")


@click.command()
@click.argument("uid", shell_complete=complete_uid)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--remove", multiple=True, metavar="NAME", help="Remove this alias; repeatable.")
@json_option
@with_server_options
def alias(target: Target, uid: str, names: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
    """Give the model UID more names in requests, and print all its aliases.

    \b
    Examples:
      xinference alias smollm2-instruct gpt-4o
      xinference alias smollm2-instruct --remove gpt-4o
    """
    with target.connect() as client:
        description = client.describe_model(uid)
        aliases = list(description.get("aliases") or ())
        unknown = [name for name in remove if name not in aliases]
        if unknown:
            raise click.UsageError(f"{uid} has no alias {unknown[0]}.")
        changed = [name for name in dict.fromkeys((*aliases, *names)) if name not in remove]
        if changed != aliases:
            aliases = client.set_aliases(uid, changed)["aliases"]
    print_json({"model_uid": uid, "aliases": aliases}) if as_json else click.echo("\n".join(aliases))


@click.command()
@click.argument("uid", shell_complete=complete_uid)
@click.option(
    "--ttl",
    type=NumberRange(min=0),
    help="Unload the model after this many idle seconds (0: only when another model needs the memory).",
)
@click.option("--pin/--no-pin", default=None, help="Do not unload the model for another model, or do.")
@click.option("--priority", type=int, help="When memory is short, models with the lowest priority are unloaded first.")
@json_option
@with_server_options
def terms(target: Target, uid: str, ttl: float | None, pin: bool | None, priority: int | None, as_json: bool) -> None:
    """Show when the on-demand model UID is unloaded, or change it without a restart.

    \b
    Examples:
      xinference terms qwen2.5-instruct
      xinference terms qwen2.5-instruct --pin
      xinference terms qwen2.5-instruct --no-pin --ttl 600
    """
    with target.connect() as client:
        if (ttl, pin, priority) == (None, None, None):
            description = client.describe_model(uid)
        else:
            description = client.set_terms(uid, ttl=ttl, pin=pin, priority=priority)
    shown = {name: description[name] for name in ("on_demand", "ttl", "pin", "priority") if name in description}
    print_json({"model_uid": uid, **shown}) if as_json else click.echo(unloading(description) or "not on demand")


def _read_options(ctx: click.Context, param: click.Parameter, text: str | None) -> Json:
    if text is None:
        return {}
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict) or not options:
        raise click.BadParameter('this is not a JSON object with options, such as {"n_ctx": 8192}.')
    return options


@click.command(cls=LaunchCommand)
@click.option("-u", "--model-uid", "option_uid", metavar="UID", shell_complete=complete_uid, help="The model's uid.")
@click.argument("uid", required=False, shell_complete=complete_uid)
@click.option("--model-config", callback=_read_options, help="The changed engine options, as a JSON object.")
@click.option(
    "--drain-timeout",
    type=NumberRange(min=0, min_open=True, max=3600),
    default=300.0,
    show_default=True,
    help="Maximum seconds for running requests to finish.",
)
@with_server_options
@click.pass_context
def reload(
    ctx: click.Context,
    target: Target,
    uid: str | None,
    option_uid: str | None,
    model_config: Json,
    drain_timeout: float,
) -> None:
    """Restart a model with changed engine options.

    Engine options are given as in `xinference launch`; the value none removes one. The command prints the state as
    JSON, and does not wait for the model.

    \b
    Example:
      xinference reload smollm2-instruct --n_ctx 8192
    """
    uids = {name for name in (option_uid, uid) if name}
    if len(uids) != 1:
        raise click.UsageError("Give exactly one model: `xinference reload UID`.")
    if twice := sorted(ctx.obj.keys() & model_config.keys()):
        raise click.UsageError(f"--{twice[0]} is also in --model-config.")
    if not (options := {**model_config, **ctx.obj}):
        raise click.UsageError("Give an engine option to change, such as --n_ctx 8192.")
    with target.connect() as client:
        print_json(client.reload_model(uids.pop(), options, drain_timeout))


@click.command()
@click.option("--failed", is_flag=True, help="Only launches that have failed.")
@wide_option
@json_option
@with_server_options
def history(target: Target, failed: bool, as_json: bool, wide: bool) -> None:
    """List the last launches, newest first, including those that failed or ended."""
    records = target.ask(lambda client: client.launch_history(failed=failed), lambda here: _local_history(here, failed))
    if as_json:
        print_json(records)
        return
    now = time.time()
    print_table(("UID", "Model", "Launched", "Ready after", "Status", "Cause"), [_row(r, now) for r in records],
        wide=wide)  # fmt: skip
    if any(record["status"] == "stopped" for record in records):
        note("No server runs. The next server starts the stopped models again.")
    if not records:
        note("No launch is recorded." if not failed else "No launch has failed.")


def _local_history(settings: Settings, failed: bool) -> list[Json]:
    from xinference.local_commands.history import launch_records

    return launch_records(settings, failed=failed)


def _row(record: Json, now: float) -> list[Any]:
    created, ready = _seconds(record["created_at"]), _seconds(record["ready_at"])
    problem = record["problem"]
    return [
        record["model_uid"],
        record["model_name"],
        None if created is None else f"{duration(max(0.0, now - created))} ago",
        None if ready is None or created is None else duration(max(0.0, ready - created)),
        record["status"],
        problem["cause"] if problem else None,
    ]


def _seconds(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
