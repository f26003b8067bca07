"""`xinference docs`: the reference pages of the built-in models, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from xinference.cli.output import note


@click.command()
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the pages; created if it does not exist.",
)
def docs(out: Path) -> None:
    """Write a reference page for each built-in model, and an index, as reStructuredText."""
    from xinference.local_commands.docs import write

    written = write(out)
    note(f"Wrote {len(written)} pages to {out}.")
