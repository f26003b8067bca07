"""`xinference download`, `cached` and `remove-cache`: the weights on the server's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xinference.cli.commands.launch import confirms_cancel
from xinference.cli.connection import Target, on_worker, talks_to_server
from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.version_options import version_options
from xinference.cli.output import INTERRUPTED, note, print_json, print_table, size

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]


@click.command()
@version_options
@json_option
@talks_to_server
@name_argument()
def download(target: Target, as_json: bool, **arguments: Any) -> None:
    """Download a model's weights without launching it, and print their path."""
    with target.connect(start=True) as client:
        version = client.download_model(**arguments)
        model = _wait(client, version)
        if model is None:
            return
    if as_json:
        print_json(model)
        return
    note(f"{version}: {size(model.get('size_bytes'))} from {model.get('hub')}")
    click.echo(model["path"])


def _wait(client: Client, version: str) -> Json | None:
    """The path and size of a download; None if it continues in the background."""
    from xinference.cli.progress import follow_download

    try:
        return follow_download(client, version) or {}
    except KeyboardInterrupt:
        if confirms_cancel("Cancel the download?"):
            client.cancel_download(version)
            note(f"Cancelled the download of {version}; the next download resumes it.")
            raise SystemExit(INTERRUPTED) from None
        note(f"The download of {version} continues in the background; repeat the command to follow it.")
        return None


@click.command()
@click.option("-n", "--model_name", "--model-name", "model_name", help="Only this model.")
@on_worker
@json_option
@talks_to_server
@name_argument(required=False)
def cached(target: Target, model_name: str | None, worker_ip: str | None, as_json: bool) -> None:
    """List cached weights on the server's machine, complete and partial."""
    with target.connect() as client:
        entries = client.list_cached_models(model_name, worker_ip)
    if as_json:
        print_json(entries)
        return
    if not entries:
        click.echo("There are no cache files.")
        return
    print_table(
        ["Name", "Format", "Size (in billions)", "Quantization", "Hub", "Bytes", "Complete", "Path"],
        [
            [
                entry.get("model_name"),
                entry.get("model_format"),
                entry.get("model_size_in_billions"),
                entry.get("quantization"),
                entry.get("hub"),
                size(entry.get("size_bytes")),
                "yes" if entry.get("complete") else "no",
                entry.get("path"),
            ]
            for entry in entries
        ],
    )


@click.command("remove-cache")
@click.option(
    "-n",
    "--model_version",
    "--model-version",
    "model_version",
    required=True,
    help="The version, such as llama-2-chat--7B--ggufv2--Q4_K_M.",
)
@click.option("--check", is_flag=True, help="Delete without confirmation.")
@on_worker
@json_option
@talks_to_server
def remove_cache(target: Target, model_version: str, worker_ip: str | None, check: bool, as_json: bool) -> None:
    """Delete the cached weights of a version."""
    with target.connect() as client:
        deletable = client.list_deletable_models(model_version, worker_ip)
        for file in deletable.get("files") or []:
            note(f"  {file['path']} ({size(file['size_bytes'])})")
        if others := deletable.get("shared_with"):
            note(f"Other versions use the same files: {', '.join(others)}.")
        if not check and not click.confirm("Do you want to proceed with the deletion?", err=True):
            note("Nothing was deleted.")
            return
        answer = client.remove_cached_model(model_version, worker_ip)
    if as_json:
        print_json(answer | {"paths": deletable.get("paths")})
    else:
        note(f"Deleted {model_version}: freed {size(answer.get('freed_bytes'))}.")
