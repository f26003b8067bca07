"""`xinference register`, `unregister` and `registrations`: the models that can be launched."""

from __future__ import annotations

from typing import Any, TextIO

import click

from xinference.cli.connection import Target, on_worker, talks_to_server
from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.output import note, print_json, print_table

Json = dict[str, Any]
_of_type = click.option("-t", "--model-type", default="LLM", show_default=True, help="LLM, embedding or rerank.")


@click.command()
@_of_type
@click.option(
    "-f",
    "--file",
    required=True,
    type=click.File(encoding="utf-8"),
    help="JSON file that describes the model; - reads standard input.",
)
@on_worker
@click.option("-p", "--persist", is_flag=True, help="Keep the model after a restart of the server.")
@talks_to_server
def register(target: Target, model_type: str, file: TextIO, worker_ip: str | None, persist: bool) -> None:
    """Register a custom model."""
    text = file.read()
    with target.connect() as client:
        client.register_model(model_type, text, persist, worker_ip)
    note(f"Registered {file.name}" + ("." if persist else " until the server stops; --persist keeps it."))


@click.command()
@_of_type
@click.option("-n", "--model-name", help="The model's name.")
@talks_to_server
@name_argument()
def unregister(target: Target, model_type: str, model_name: str) -> None:
    """Remove a custom model."""
    with target.connect() as client:
        client.unregister_model(model_type, model_name)
    note(f"Unregistered {model_name}.")


@click.command()
@_of_type
@json_option
@talks_to_server
def registrations(target: Target, model_type: str, as_json: bool) -> None:
    """List the models that can be launched."""
    with target.connect() as client:
        families = client.list_model_registrations(model_type, detailed=True)
    if as_json:
        print_json(families)
        return
    print_table(
        ["Type", "Name", "Language", "Ability", "Context", "Sizes (in billions)", "Is-built-in"],
        [
            [
                model_type,
                family["model_name"],
                ", ".join(family.get("model_lang") or family.get("language") or []),
                ", ".join(family.get("model_ability") or []),
                family.get("context_length"),
                ", ".join(_sizes(family)),
                family.get("is_builtin"),
            ]
            for family in families
        ],
    )
    for broken in (family for family in families if "problem" in family):
        note(f"{broken['model_name']} can't be launched: {broken.get('path')}: {broken['problem']['cause']}")


def _sizes(family: Json) -> list[str]:
    """Each size once, in the order of the specs."""
    sizes = (spec.get("model_size_in_billions") for spec in family.get("model_specs") or [])
    return list(dict.fromkeys(str(size) for size in sizes if size))
