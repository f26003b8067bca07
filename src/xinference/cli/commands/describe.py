"""`xinference describe`: the facts of one model that is launched, registered or both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from xinference.cli import model_figures
from xinference.cli.connection import Target, with_server_options
from xinference.cli.model_description import family_text, instance_text
from xinference.cli.options.completion import complete_model, complete_uid
from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.output import print_json
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]
_TYPES = ("LLM", "embedding", "rerank")
_EXAMPLES = """\b
Examples:
  xinference describe qwen3        a model that can be launched
  xinference describe my-model     a launched model, by its uid
"""


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The launched models, then those that can be launched."""
    return list(dict.fromkeys([*complete_uid(ctx, param, incomplete), *complete_model(ctx, param, incomplete)]))


@click.command(epilog=_EXAMPLES)
@click.option("-n", "--model-name", help="The same as NAME.")
@json_option
@with_server_options
@name_argument(complete=_complete)
def describe(target: Target, model_name: str, as_json: bool) -> None:
    """Describe a model, and show the commands to use it.

    NAME is the uid or an alias of a launched model, or the name of a model in `xinference registrations`. If both
    exist, both are shown. Without a server, the command describes only registered models.
    """
    launched, families, instances = target.ask(
        partial(_of_server, model_name=model_name, with_figures=not as_json), _without_server
    )
    by_name = {str(each["model_name"]).lower(): each for each in families}
    registered = by_name.get(model_name.lower()) or by_name.get(model_name.partition(":")[0].lower())
    if not launched and registered is None:
        uids = None if instances is None else [str(each["model_uid"]) for each in instances]
        raise _unknown(model_name, uids, [str(family["model_name"]) for family in families], target.settings.url)
    if as_json:
        print_json({"launched": launched, "registered": registered})
        return
    texts = [instance_text(each) for each in launched]
    if registered is not None:
        texts.append(family_text(registered))
    click.echo("\n\n".join(texts))


_Models = tuple[list[Json], list[Json], list[Json] | None]
"""The launched models of a name, all registered models, and all launched models; None: no server runs."""


def _of_server(client: Client, *, model_name: str, with_figures: bool) -> _Models:
    families = [each for kind in _TYPES for each in _typed(client.list_model_registrations(kind, True), kind)]
    instances = client.list_instances()
    found = [
        each | {"engine_options": _engine_options(client, each["model_uid"])}
        for each in instances
        if model_name in (each["model_uid"], each.get("model_name"), *(each.get("aliases") or ()))
    ]
    if found and with_figures:
        memory = model_figures.memory_of_models(model_figures.devices_of(client))
        how = {"url": client.base_url, "needs_key": client.auth()["auth"]}
        found = [model_figures.with_memory(each, memory) | how for each in found]
    return found, families, instances


def _without_server(settings: Settings) -> _Models:
    from xinference.local_commands.registrations import registration_entries

    return [], [each for kind in _TYPES for each in _typed(registration_entries(settings, kind), kind)], None


def _typed(families: Sequence[Json], model_type: str) -> list[Json]:
    """The families with their type, which a server does not repeat in each entry."""
    return [{"model_type": model_type} | family for family in families]


def _engine_options(client: Client, uid: str) -> Json | None:
    """The options that were given to the engine; None: this key may not read them, or the engine reports none."""
    try:
        options = client.get_model_reload_config(uid).get("model_config")
    except Problem:
        return None
    return options if isinstance(options, dict) else None


def _unknown(name: str, uids: Sequence[str] | None, registered: Sequence[str], url: str) -> Problem:
    """The problem of a name that nothing has; `uids`: the launched models, None: no server runs."""
    cause = f"No launched or registered model has the name {name!r}."
    if uids is None:
        cause = f"No server answers at {url}, and no registered model has the name {name!r}."
    similar = near(name, [*(uids or ()), *registered])
    if "/" in name or name.endswith(".gguf"):
        hint = f"`xinference inspect {name}` shows the contents of a file, a folder or a repository."
    elif similar:
        hint = f"Did you mean {join_names(similar)}?"
    else:
        hint = "`xinference list` shows the launched models, and `xinference registrations` those that can be launched."
    return Problem(Code.MODEL_NOT_FOUND, cause, hint=hint)
