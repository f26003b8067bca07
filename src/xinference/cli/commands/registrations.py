"""`xinference register`, `unregister` and `registrations`: the models that can be launched."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from xinference.cli.connection import Target, with_server_options, worker_ip_option
from xinference.cli.given_file import as_text, name_of, read_given
from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import note, number_of_billions, print_json, size_in_billions
from xinference.cli.table import print_table
from xinference.config import Settings
from xinference.errors import Problem, bad_request, join_names, near

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]
_of_type = click.option("-t", "--model-type", default="LLM", show_default=True, help="LLM, embedding or rerank.")


@click.command()
@_of_type
@click.option(
    "-f",
    "--file",
    required=True,
    type=click.File("rb"),
    help="JSON file that describes the model; - reads standard input.",
)
@worker_ip_option
@click.option("-p", "--persist", is_flag=True, help="Keep the model after a restart of the server.")
@json_option
@with_server_options
def register(
    target: Target, model_type: str, file: BinaryIO, worker_ip: str | None, persist: bool, as_json: bool
) -> None:
    """Register a custom model."""
    hint, file_name = "Give the JSON file that describes the model.", name_of(file)
    text = as_text(read_given(file, hint=hint), file_name, hint=hint)
    _require_json(text, file_name)
    with target.connect() as client:
        client.register_model(model_type, text, persist, worker_ip)
    name = _described_name(text) or file_name
    if as_json:
        print_json({"model_name": name, "model_type": model_type, "persist": persist})
    note(f"Registered {name}" + ("." if persist else " until the server stops; --persist keeps it."))


@click.command()
@_of_type
@click.option("-n", "--model-name", help="The model's name.")
@with_server_options
@name_argument()
def unregister(target: Target, model_type: str, model_name: str) -> None:
    """Remove a custom model."""
    with target.connect() as client:
        client.unregister_model(model_type, model_name)
    note(f"Unregistered {model_name}.")


@click.command()
@_of_type
@click.argument("part", required=False, default="")
@click.option("--fits", is_flag=True, help="Show for each size whether it fits in the memory of the server's machine.")
@wide_option
@json_option
@with_server_options
def registrations(target: Target, model_type: str, part: str, fits: bool, as_json: bool, wide: bool) -> None:
    """List the models that can be launched.

    PART limits the list to the names that contain this text. Without a server, the list has the built-in models and the
    custom models of this home.
    """
    if fits:
        from xinference.cli.commands.fits_table import show_fits

        show_fits(target, model_type, part, as_json=as_json, wide=wide)
        return
    families, cached = _families(target, model_type, with_cache=not as_json)
    every = [family["model_name"] for family in families]
    families = [family for family in families if part.strip().lower() in family["model_name"].lower()]
    if as_json:
        print_json(families)
        return
    _print_families(families, model_type, cached, wide=wide)
    if part and not families:
        close = near(part, every)
        similar = f"Did you mean {join_names(close)}?" if close else "See --model-type for the other types."
        note(f"No {model_type} model has {part!r} in its name. {similar}")
    if families:
        note("`xinference engine NAME` shows which versions of a model this machine can run.")
    for broken in (family for family in families if "problem" in family):
        note(f"{broken['model_name']} can't be launched: {broken.get('path')}: {broken['problem']['cause']}")


def _print_families(families: list[Json], model_type: str, cached: set[str], *, wide: bool) -> None:
    columns: dict[str, Callable[[Json], Any]] = {
        "Type": lambda family: model_type,
        "Name": lambda family: family["model_name"],
        "Sizes": lambda family: ", ".join(_sizes(family)),
        "Abilities": lambda family: ", ".join(family.get("model_ability") or []),
        "Languages": lambda family: ", ".join(family.get("model_lang") or family.get("language") or []),
        "Context": lambda family: family.get("context_length"),
        "Origin": lambda family: "built-in" if family.get("is_builtin") else "custom",
        "Cached": lambda family: "yes" if family["model_name"] in cached else None,
    }
    shown = [name for name in columns if wide or name not in ("Type", "Languages", "Origin")]
    print_table(shown, [[columns[name](family) for name in shown] for family in families], wide=wide)


def _require_json(text: str, name: str) -> None:
    """Refuse a file that is not JSON, by its name and the place of the fault."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_request(
            f"{name} is not JSON: {error}.",
            hint="Give the JSON file that describes the model; see docs/custom-models.md.",
        ) from None


def _described_name(text: str) -> str | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # the server has taken it
        return None
    return document.get("model_name") if isinstance(document, dict) else None


def _sizes(family: Json) -> list[str]:
    """Each size once, the smallest first."""
    sizes = [spec.get("model_size_in_billions") for spec in family.get("model_specs") or []]
    ordered = sorted((size for size in sizes if size), key=number_of_billions)
    return list(dict.fromkeys(str(size_in_billions(size)) for size in ordered))


def _families(target: Target, model_type: str, *, with_cache: bool) -> tuple[list[Json], set[str]]:
    """The models of one type, and the names of those with weights in the cache."""

    def of_server(client: Client) -> tuple[list[Json], set[str]]:
        families = client.list_model_registrations(model_type, detailed=True)
        return families, _cached_names(client) if with_cache else set()

    def without_server(settings: Settings) -> tuple[list[Json], set[str]]:
        from xinference.local_commands.cache import cached_entries
        from xinference.local_commands.registrations import registration_entries

        entries = cached_entries(settings) if with_cache else []
        names = {str(entry["model_name"]) for entry in entries if entry.get("complete")}
        return registration_entries(settings, model_type), names

    return target.ask(of_server, without_server)


def _cached_names(client: Client) -> set[str]:
    """The models with weights in the cache; none if the server does not tell."""
    try:
        return {str(entry.get("model_name")) for entry in client.list_cached_models() if entry.get("complete")}
    except Problem:  # the key may not see the cache
        return set()
