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
    help="Folder for the pages; it is created if it is not there.",
)
def docs(out: Path) -> None:
    """Write the page of every built-in model, and an index of them, as reStructuredText."""
    from xinference.local_commands.docs import write

    written = write(out)
    note(f"Wrote {len(written)} pages to {out}.")
