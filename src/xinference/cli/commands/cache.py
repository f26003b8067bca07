"""`xinference download`, `cached` and `remove-cache`: the weights on the server's machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from xinference.cli.connection import Target, with_server_options, worker_ip_option
from xinference.cli.interrupts import answer_or_cancel, confirms_cancel
from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.version_options import version_options
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import INTERRUPTED, note, print_json, size, size_in_billions
from xinference.cli.table import print_table
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, weights_in_use

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]


@click.command()
@version_options
@json_option
@with_server_options
@name_argument()
def download(target: Target, as_json: bool, **arguments: Any) -> None:
    """Download a model's weights without launching it, and print their path."""
    with target.connect(start=True) as client:
        version = _begin(client, arguments)
        model = _wait(client, version)
        if model is None:
            return
    if as_json:
        print_json(model)
        return
    note(f"{version}: {size(model.get('size_bytes'))} from {model.get('hub')}")
    click.echo(model["path"])


def _begin(client: Client, arguments: Json) -> str:
    """Begin a download; the server may look up the model on a hub before it answers with the version."""

    def cancel(version: str) -> None:
        client.cancel_download(version)
        note(f"Cancelled the download of {version}; the next download resumes it.")

    continues = "The download may continue on the server; repeat the command to follow it."
    return answer_or_cancel(lambda: client.download_model(**arguments), "Cancel the download?", cancel, continues)


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
@worker_ip_option
@wide_option
@json_option
@with_server_options
@name_argument(required=False)
def cached(target: Target, model_name: str | None, worker_ip: str | None, as_json: bool, wide: bool) -> None:
    """List the cached weights on the server's machine, including incomplete downloads.

    Without a server, list the cached weights on this machine.
    """
    entries = _cached(target, model_name, worker_ip)
    if as_json:
        print_json(entries)
        return
    if not entries:
        click.echo("There are no cache files.")
        return
    columns: dict[str, Callable[[Json], Any]] = {
        "Name": lambda entry: entry.get("model_name"),
        "Size": lambda entry: size_in_billions(entry.get("model_size_in_billions")),
        "Format": lambda entry: entry.get("model_format"),
        "Quantization": lambda entry: entry.get("quantization"),
        "Hub": lambda entry: entry.get("hub"),
        "Bytes": lambda entry: size(entry.get("size_bytes")),
        "Complete": lambda entry: "yes" if entry.get("complete") else "no",
        "Version": lambda entry: entry.get("model_version"),
        "Path": lambda entry: entry.get("path"),
    }
    shown = [name for name in columns if wide or name not in ("Hub", "Version", "Path")]
    print_table(shown, [[columns[name](entry) for name in shown] for entry in entries], wide=wide)
    # Two models may use the same files, as a repository by its id and a built-in model do.
    total = size(sum({entry.get("path"): entry.get("size_bytes") or 0 for entry in entries}.values()))
    note(f"Total: {total} in {len(entries)} {'version' if len(entries) == 1 else 'versions'}; --wide shows the paths.")


def _cached(target: Target, model_name: str | None, worker_ip: str | None) -> list[Json]:
    def without_server(settings: Settings) -> list[Json]:
        from xinference.local_commands.cache import cached_entries

        return cached_entries(settings, model_name)

    return target.ask(lambda client: client.list_cached_models(model_name, worker_ip), without_server)


_REMOVE_EXAMPLES = """\b
Examples:
  xinference remove-cache smollm2-instruct                    all its versions
  xinference remove-cache llama-2-chat--7B--ggufv2--Q4_K_M    one version
"""


@click.command("remove-cache", epilog=_REMOVE_EXAMPLES)
@click.option(
    "-n",
    "--model_version",
    "--model-version",
    "model_version",
    help="The name of a model, or a version such as llama-2-chat--7B--ggufv2--Q4_K_M.",
)
@click.option("-y", "--yes", "--check", "confirmed", is_flag=True, help="Delete without confirmation.")
@worker_ip_option
@json_option
@with_server_options
@name_argument("model_version", "--model-version")
def remove_cache(target: Target, model_version: str, worker_ip: str | None, confirmed: bool, as_json: bool) -> None:
    """Delete the cached weights of a model, or of one of its versions."""
    with target.connect() as client:
        versions = _deletable(client, model_version, worker_ip)
        for version_id, deletable in versions.items():
            if users := deletable.get("used_by"):
                raise weights_in_use(version_id, users)
        for version_id, deletable in versions.items():
            note(f"{version_id}:")
            for file in deletable.get("files") or []:
                note(f"  {file['path']} ({size(file['size_bytes'])})")
            if others := deletable.get("shared_with"):
                note(f"Other versions use the same files: {', '.join(others)}.")
        if not confirmed and not click.confirm("Do you want to proceed with the deletion?", err=True):
            note("Nothing was deleted.")
            return
        freed = sum(
            client.remove_cached_model(version_id, worker_ip).get("freed_bytes") or 0 for version_id in versions
        )
    if as_json:
        paths = [path for deletable in versions.values() for path in deletable.get("paths") or []]
        print_json({"result": True, "freed_bytes": freed, "paths": paths})
    else:
        note(f"Deleted {', '.join(versions)}: freed {size(freed)}.")


def _deletable(client: Client, name: str, worker_ip: str | None) -> dict[str, Json]:
    """The version `name`, or the cached versions of the model `name`, each with what a removal deletes.

    Raises:
        Problem: nothing of that name is cached.
    """
    try:
        return {name: client.list_deletable_models(name, worker_ip)}
    except Problem as problem:
        if problem.code != Code.NOT_CACHED:
            raise
        wanted = name.strip().lower()
        cached = client.list_cached_models(None, worker_ip)
        of_model = [
            str(entry["model_version"])
            for entry in cached
            if wanted in (str(entry.get("model_name")).lower(), str(entry.get("model_id")).lower())
        ]
        if not of_model:
            raise
    return {version_id: client.list_deletable_models(version_id, worker_ip) for version_id in dict.fromkeys(of_model)}
