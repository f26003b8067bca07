"""`xinference list`, `terminate` and `logs`."""

from __future__ import annotations

from contextlib import closing

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.json_option import json_option
from xinference.cli.output import note, print_json, print_table, write


@click.command("list")
@json_option
@with_server_options
def list_models(target: Target, as_json: bool) -> None:
    """List launched models, ready or not."""
    with target.connect() as client:
        instances = client.list_instances()
    if as_json:
        print_json(instances)
        return
    header = ["UID", "Type", "Name", "Engine", "Format", "Size (in billions)", "Quantization", "Context", "Status"]
    keys = [
        "model_uid",
        "model_type",
        "model_name",
        "model_engine",
        "model_format",
        "model_size_in_billions",
        "quantization",
        "context_length",
        "status",
    ]
    print_table(header, [[instance.get(key) for key in keys] for instance in instances])
    for instance in instances:
        if problem := instance.get("problem"):
            note(f"{instance['model_uid']}: {problem['cause']}")


@click.command()
@click.option("-u", "--model-uid", "option_uid", metavar="UID", help="The model's uid.")
@click.argument("uid", required=False)
@with_server_options
def terminate(target: Target, option_uid: str | None, uid: str | None) -> None:
    """Terminate the model UID, or cancel its launch."""
    uids = {name for name in (option_uid, uid) if name}
    if len(uids) != 1:
        raise click.UsageError("Give exactly one model: `xinference terminate --model-uid UID`.")
    (model_uid,) = uids
    with target.connect() as client:
        client.terminate_model(model_uid)
    note(f"Terminated {model_uid}.")


@click.command()
@click.argument("uid")
@click.option("-f", "--follow", is_flag=True, help="Follow further output.")
@click.option(
    "--lines", type=click.IntRange(min=0), default=40, show_default=True, help="Number of lines from the end."
)
@with_server_options
def logs(target: Target, uid: str, follow: bool, lines: int) -> None:
    """Show the output of the engine of the model UID."""
    with target.connect() as client, closing(client.logs(uid, lines=lines, follow=follow)) as pieces:
        for piece in pieces:
            write(piece)
