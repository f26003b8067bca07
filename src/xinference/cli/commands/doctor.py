"""`xinference doctor`: a check of this machine."""

from __future__ import annotations

from pathlib import Path

import click

from xinference.cli.options.json_option import json_option
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import print_json
from xinference.cli.table import print_table
from xinference.config import Settings


@click.command()
@click.option(
    "--home", type=click.Path(file_okay=False, path_type=Path), help="Data folder of the server. [env: XINFERENCE_HOME]"
)
@wide_option
@json_option
def doctor(home: Path | None, as_json: bool, wide: bool) -> None:
    """Check this machine (CPU, GPU, memory, disk, hubs, engines), and show what is missing and what that prevents.

    The exit status is 1 only if something is broken.
    """
    from xinference.local_commands.doctor import examine

    findings = examine(Settings.from_env(home=home))
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        marks = {"ok": "ok", "lack": "-", "broken": "BROKEN"}
        print_table(
            ["", "Item", "Value", "Effect"],
            [[marks[f.state], f.about, f.found, f.cost or ""] for f in findings],
            wide=wide,
        )
    if any(finding.state == "broken" for finding in findings):
        raise SystemExit(1)
