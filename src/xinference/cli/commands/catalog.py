"""`xinference engine`: which engines run a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from xinference.cli.connection import Target, with_server_options
from xinference.cli.options.completion import complete_engine, complete_model, complete_quantization
from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.version_options import read_name, read_size
from xinference.cli.options.wide_option import wide_option
from xinference.cli.output import note, print_json, size_in_billions
from xinference.cli.table import print_table
from xinference.error_codes import Code
from xinference.errors import bad_request

Json = dict[str, Any]


@click.command()
@click.option(
    "-n",
    "--model-name",
    callback=read_name,
    shell_complete=complete_model,
    help="A model's name, a repository such as org/repo, or a path.",
)
@click.option("-en", "--model-engine", shell_complete=complete_engine, help="Only this engine.")
@click.option("-f", "--model-format", help="Only this format.")
@click.option(
    "-s",
    "--model-size-in-billions",
    "--size-in-billions",
    "model_size_in_billions",
    callback=read_size,
    help="Only this size.",
)
@click.option("-q", "--quantization", shell_complete=complete_quantization, help="Only this quantization.")
@click.option(
    "--all", "show_all", is_flag=True, help="Include the versions that no engine runs here, with the reasons."
)
@wide_option
@json_option
@with_server_options
@name_argument()
def engine(
    target: Target,
    model_name: str,
    model_engine: str | None,
    quantization: str | None,
    show_all: bool,
    as_json: bool,
    wide: bool,
    **filters: Any,
) -> None:
    """Show the versions of a model that the server's machine can run, and on which engines.

    Without a server, this machine is checked.
    """
    rows = target.ask(lambda client: client.engine_rows(model_name), lambda here: _local().rows_of(here, model_name))
    if model_engine:
        engines = list(dict.fromkeys(row["engine"] for row in rows))
        if model_engine.lower() not in (name.lower() for name in engines):
            raise bad_request(
                f'Xinference does not support this inference engine "{model_engine}".',
                hint=f"Supported engines: {', '.join(engines)}.",
                code=Code.ENGINE_UNAVAILABLE,
            )
    filters |= {"engine": model_engine, "quantization": quantization}
    matching = [row for row in rows if _matches(row, filters)]
    if as_json:
        print_json(matching)
        return
    if show_all or wide or not any(row["ok"] for row in matching):
        _print_reasons(matching, wide)
    else:
        _print_runnable(matching)
    if not any(row["ok"] for row in matching):
        raise bad_request(
            f"No engine on the server's machine runs such a version of {model_name}.", code=Code.ENGINE_UNAVAILABLE
        )


def _local() -> Any:
    """The same answers without a server."""
    from xinference.local_commands import engines

    return engines


def _matches(row: Json, filters: Mapping[str, Any]) -> bool:
    return all(value is None or _equal(row[key], value) for key, value in filters.items())


def _equal(value: Any, wanted: Any) -> bool:
    left, right = (str(each).lower().replace("_", ".") for each in (value, wanted))
    return left == right or (left.replace(".", "", 1).isdigit() and right.replace(".", "", 1).isdigit()
        and float(left) == float(right))  # fmt: skip


def _print_runnable(rows: Sequence[Json]) -> None:
    """One line for the sizes of a format that have the same quantizations on the same engines."""
    engines: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        version = (row["model_size_in_billions"], row["model_format"], row["quantization"])
        engines.setdefault(version, [])
        if row["ok"]:
            engines[version].append(row["engine"])
    lines: dict[tuple[Any, ...], list[str]] = {}
    for (billions, model_format, quantization), names in engines.items():
        if names:
            lines.setdefault((billions, model_format, ", ".join(names)), []).append(quantization)
    sizes: dict[tuple[str, str, str], list[str]] = {}
    for (billions, model_format, names), quantizations in lines.items():
        sizes.setdefault((model_format, names, ", ".join(quantizations)), []).append(str(size_in_billions(billions)))
    print_table(
        ["Sizes", "Format", "Engines", "Quantizations"],
        [
            [", ".join(billions), model_format, names, quantizations]
            for (model_format, names, quantizations), billions in sizes.items()
        ],
    )
    hidden = sum(not names for names in engines.values())
    if hidden:
        note(f"{hidden} of {len(engines)} versions can't run on this machine; --all shows why.")


def _print_reasons(rows: Sequence[Json], wide: bool) -> None:
    """One line for each spec, engine and reason, with the quantizations that it holds for."""
    lines: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        key = (row["model_format"], row["model_size_in_billions"], row["engine"], row["reason"])
        lines.setdefault(key, []).append(row["quantization"])
    if lines:
        print_table(
            ["Engine", "Format", "Size", "Runs", "Quantizations", "Reason"],
            [
                [
                    name,
                    model_format,
                    size_in_billions(billions),
                    "no" if reason else "yes",
                    ", ".join(quantizations),
                    reason or "",
                ]
                for (model_format, billions, name, reason), quantizations in lines.items()
            ],
            wide=wide,
        )
