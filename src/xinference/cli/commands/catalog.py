"""`xinference engine` and `vllm-models`: which engines run which models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from xinference.cli.connection import Target, talks_to_server
from xinference.cli.options.json_option import json_option
from xinference.cli.options.name_argument import name_argument
from xinference.cli.options.version_options import read_name, read_size
from xinference.cli.output import print_json, print_table
from xinference.error_codes import Code
from xinference.errors import bad_request

Json = dict[str, Any]


@click.command()
@click.option("-n", "--model-name", callback=read_name, help="Name of a model, repository id or path.")
@click.option("-en", "--model-engine", help="Only this engine.")
@click.option("-f", "--model-format", help="Only this format.")
@click.option(
    "-s",
    "--model-size-in-billions",
    "--size-in-billions",
    "model_size_in_billions",
    callback=read_size,
    help="Only this size.",
)
@click.option("-q", "--quantization", help="Only this quantization.")
@json_option
@talks_to_server
@name_argument()
def engine(
    target: Target, model_name: str, model_engine: str | None, quantization: str | None, as_json: bool, **filters: Any
) -> None:
    """Show the versions of a model that each engine runs, or why it runs none."""
    with target.connect() as client:
        rows = client.engine_rows(model_name)
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
    _print_engines(model_name, matching)
    if not any(row["ok"] for row in matching):
        raise bad_request(
            f"No engine on the server's machine runs such a version of {model_name}.", code=Code.ENGINE_UNAVAILABLE
        )


def _matches(row: Json, filters: Mapping[str, Any]) -> bool:
    return all(value is None or str(row[key]).lower() == str(value).lower() for key, value in filters.items())


def _print_engines(model_name: str, rows: Sequence[Json]) -> None:
    """One line for each spec, engine and reason, with the quantizations that it holds for."""
    lines: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        key = (row["model_format"], row["model_size_in_billions"], row["engine"], row["reason"])
        lines.setdefault(key, []).append(row["quantization"])
    if lines:
        print_table(
            ["Name", "Engine", "Format", "Size (in billions)", "Runs", "Quantization", "Reason"],
            [
                [
                    model_name,
                    name,
                    model_format,
                    size,
                    "no" if reason else "yes",
                    ", ".join(quantizations),
                    reason or "",
                ]
                for (model_format, size, name, reason), quantizations in lines.items()
            ],
        )


@click.command("vllm-models")
@json_option
@talks_to_server
def vllm_models(target: Target, as_json: bool) -> None:
    """List the models that vLLM supports, by ability."""
    with target.connect() as client:
        models = client.vllm_models()
    if as_json:
        print_json(models)
        return
    print_table(["Ability", "Name"], [[ability, name] for ability, names in models.items() for name in names])
