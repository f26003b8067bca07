"""`xinference tune`: measures an engine's options on this machine, without a server."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.numbers import NumberRange
from xinference.cli.options.version_options import absolute_path, version_options
from xinference.cli.output import note, print_json
from xinference.cli.table import print_table


@click.command()
@version_options
@click.option("-mp", "--model-path", help="File or folder that has the weights; nothing is downloaded.")
@click.option(
    "--minutes",
    type=NumberRange(min=0, min_open=True, max=24 * 60),
    default=10,
    show_default=True,
    help="Maximum duration of the measurement in minutes.",
)
@click.option("--any-answers", is_flag=True, help="Also try options that change the answers.")
@click.option("--forget", is_flag=True, help="Delete the stored measurements of this model, and measure nothing.")
@json_option
@name_argument()
def tune(minutes: float, any_answers: bool, forget: bool, as_json: bool, **version: Any) -> None:
    """Measure which engine options make a model fastest on this machine.

    Later launches of the same version use these options; `launch --no-tune` does not. An option is kept only if it
    lowers no measured speed and changes no answer at temperature 0.
    """
    from xinference.local_commands import tune as local

    if forget:
        _forget(local.forget(version["model_name"]), version["model_name"], as_json)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the measured engines end with this process
    body = {name: value for name, value in version.items() if value is not None}
    if "model_path" in body:
        body["model_path"] = absolute_path(body["model_path"])
    result = local.tune(body, minutes=minutes, any_answers=any_answers, report=note)
    if as_json:
        print_json({"version": result.version_id, "engine": result.engine, "options": result.options,
            "speed_to_defaults": result.ratios})  # fmt: skip
        return
    if result.ratios:
        rows = [[name, f"{ratio:.2f}"] for name, ratio in result.ratios.items()]
        print_table(["Figure", "Speed to defaults"], rows)
    for name, value in result.options.items():
        click.echo(f"--{name} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    note("Later launches use these options." if result.options else "No other options are faster than the defaults.")


def _forget(versions: list[str], name: str, as_json: bool) -> None:
    if as_json:
        print_json({"forgotten": versions})
    else:
        note(
            f"Deleted the measurements of {', '.join(versions)}."
            if versions
            else f"There are no measurements of {name}."
        )
