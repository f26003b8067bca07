"""The commands that list the models of one engine; the engine's data gives their names."""

from __future__ import annotations

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.json_option import json_option
from xinference.cli.output import print_json
from xinference.cli.table import print_table
from xinference.config import Settings
from xinference.engines.listing import Listing
from xinference.engines.listings import LISTINGS


def models_of(settings: Settings, engine: str) -> dict[str, list[str]]:
    """The same answer without a server."""
    from xinference.local_commands import engines

    return engines.models_of(settings, engine)


def _command(listing: Listing) -> click.Command:
    @click.command(listing.command, help=f"List the models that {listing.engine} supports, by ability.")
    @json_option
    @with_server_options
    def command(target: Target, as_json: bool) -> None:
        models: dict[str, list[str]] = target.ask(
            lambda client: getattr(client, listing.method)(), lambda here: models_of(here, listing.engine)
        )
        if as_json:
            print_json(models)
            return
        print_table(["Ability", "Name"], [[ability, name] for ability, names in models.items() for name in names])

    return command


def __getattr__(name: str) -> click.Command:
    """The command of this name: `cli.main` loads commands as attributes of their modules."""
    listing = next((listing for listing in LISTINGS if listing.command == name), None)
    if listing is None:
        raise AttributeError(name)
    return _command(listing)
