"""`xinference engine` and `registrations`: what can be launched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from xinference.cli.connection import Target, talks_to_server
from xinference.cli.launch import read_size
from xinference.cli.output import note, print_json, print_table
from xinference.errors import not_found

Json = dict[str, Any]


@click.command()
@click.option("-n", "--model-name", required=True, help="The model's name.")
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@talks_to_server
def engine(
    target: Target, model_name: str, model_engine: str | None, quantization: str | None, as_json: bool, **wanted: Any
) -> None:
    """Show which engines run a model in which versions, or why they do not."""
    with target.connect() as client:
        engines = client.engines(model_name)
    if model_engine:
        name = next((name for name in engines if name.lower() == model_engine.lower()), None)
        if name is None:
            raise not_found(
                f'Xinference does not support this inference engine "{model_engine}".',
                hint=f"It knows: {', '.join(engines)}.",
                code="engine_not_found",
            )
        engines = {name: engines[name]}
    found = {name: _matching(versions, quantization, wanted) for name, versions in engines.items()}
    if as_json:
        print_json(found)
        return
    _print_engines(model_name, found)


def _matching(versions: list[Json] | str, quantization: str | None, wanted: Mapping[str, Any]) -> list[Json] | str:
    """The versions that are as wanted, with the wanted quantization only; a reason stays one."""
    if isinstance(versions, str):
        return versions
    return [
        {**version, "quantizations": [quantization] if quantization else version["quantizations"]}
        for version in versions
        if all(value is None or str(version[key]) == str(value) for key, value in wanted.items())
        and (quantization is None or quantization in version["quantizations"])
    ]


def _print_engines(model_name: str, found: Mapping[str, list[Json] | str]) -> None:
    rows = [
        [
            version["model_name"],
            name,
            version["model_format"],
            version["model_size_in_billions"],
            ", ".join(version["quantizations"]),
        ]
        for name, versions in found.items()
        if not isinstance(versions, str)
        for version in versions
    ]
    reasons = {name: versions for name, versions in found.items() if isinstance(versions, str)}
    if rows:
        print_table(["Name", "Engine", "Format", "Size (in billions)", "Quantization"], rows)
    for name, reason in reasons.items():
        note(f"{name}: {reason}")
    if not rows:
        raise not_found(f"No engine here runs such a version of {model_name}.", code="engine_not_found")


@click.command()
@click.option("-t", "--model-type", default="LLM", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@talks_to_server
def registrations(target: Target, model_type: str, as_json: bool) -> None:
    """List the models that can be launched."""
    with target.connect() as client:
        families = client.registrations(model_type)
    if as_json:
        print_json(families)
        return
    print_table(
        ["Type", "Name", "Language", "Ability", "Context", "Sizes (in billions)", "Is-built-in"],
        [
            [
                model_type,
                family["model_name"],
                ", ".join(family.get("model_lang") or []),
                ", ".join(family.get("model_ability") or []),
                family.get("context_length"),
                ", ".join(_sizes(family)),
                family.get("is_builtin"),
            ]
            for family in families
        ],
    )


def _sizes(family: Json) -> list[str]:
    """Each size once, in the order of the specs."""
    return list(dict.fromkeys(str(spec["model_size_in_billions"]) for spec in family.get("model_specs") or []))
