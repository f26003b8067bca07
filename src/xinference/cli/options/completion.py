"""Completion of values by the shell. A failure offers nothing: the shell shows no errors."""

from __future__ import annotations

from collections.abc import Iterable

import click

#: Maximum seconds to wait for the server.
SECONDS = 2.0


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The built-in models."""
    from xinference.local_commands.names import model_names

    return _beginning(model_names(), incomplete)


def complete_engine(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The engines."""
    from xinference.local_commands.names import engine_names

    return _beginning(engine_names(), incomplete)


def complete_quantization(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The quantizations of the model that the line names, else all."""
    from xinference.local_commands.names import quantizations

    return _beginning(quantizations(ctx.params.get("model_name") or ctx.params.get("name")), incomplete)


def complete_uid(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The launched models of the server that the environment names."""
    from xinference.cli.saved_login import saved_token
    from xinference.client import Client
    from xinference.client.local_key import owner_key
    from xinference.config import Settings
    from xinference.errors import Problem

    try:
        settings = Settings.from_env(endpoint=ctx.params.get("endpoint"))
        key = ctx.params.get("api_key") or owner_key(settings) or saved_token(settings)
        with Client(settings.url, key, check=False, retries=0, timeout=SECONDS) as client:
            return _beginning((str(entry["model_uid"]) for entry in client.list_instances()), incomplete)
    except Problem:
        return []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.lower().startswith(incomplete.lower())]
