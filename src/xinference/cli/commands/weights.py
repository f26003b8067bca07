"""`xinference inspect` and `convert`: local weights, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from xinference.cli.options.json_option import json_option
from xinference.cli.options.numbers import NumberRange, TokenCount
from xinference.cli.options.version_options import read_size
from xinference.cli.output import clean, note, print_json, size

Json = dict[str, Any]
_TEMPLATE_LINES = 5
_FILES_SHOWN = 20


@click.command()
@click.argument("what", metavar="FILE|FOLDER|HUB-ID")
@json_option
def inspect(what: str, as_json: bool) -> None:
    """Show what a weight file, a model's folder or a repository (org/repo on Hugging Face) contains."""
    from xinference.local_commands.inspect import inspect as look

    report = look(what)
    if as_json:
        print_json(report)
    else:
        click.echo(clean(inspection_text(report)))


def inspection_text(report: Json) -> str:
    """An inspection as text: the facts, then each engine."""
    per_token, full, context = report["kv_bytes_per_token"], report["kv_bytes_full"], report["context_length"]
    cache = f"{size(per_token)} per token" if per_token else None
    if cache and full:
        cache += f", {size(full)} for {context} tokens"
    facts = {
        "Format": report["model_format"],
        "Architecture": report["architecture"],
        "Quantization": report["quantization"],
        "Size": size(report["size_bytes"]),
        "Layers": report["layers"],
        "Heads": _heads(report),
        "Context": f"{context} tokens" if context else None,
        "Embedding": report["embedding_length"],
        "Vocabulary": report["vocab_size"],
        "KV cache": cache,
        "Tensors": ", ".join(f"{name} {size(count)}" for name, count in (report["bytes_by_type"] or {}).items()),
        "Files": _indent([f"{file['name']} ({size(file['size_bytes'])})" for file in report["files"]], _FILES_SHOWN),
        "Template": _indent((report["chat_template"] or "").splitlines(), _TEMPLATE_LINES),
        "Notes": _indent(list(report["notes"]), len(report["notes"])),
    }
    lines = [report["what"]]
    lines += [f"  {name + ':':<14}{value}" for name, value in facts.items() if value]
    lines += ["Engines:", *_engine_lines(report["engines"])]
    return "\n".join(lines)


def _heads(report: Json) -> str | None:
    if not report["heads"]:
        return None
    parts = [str(report["heads"])]
    if report["kv_heads"]:
        parts.append(f"{report['kv_heads']} for keys and values")
    if report["head_dim"]:
        parts.append(f"{report['head_dim']} wide")
    return ", ".join(parts)


def _engine_lines(engines: Mapping[str, str | None]) -> list[str]:
    return [f"  {name + ':':<14}{'yes' if reason is None else f'no: {reason}'}" for name, reason in engines.items()]


def _indent(lines: list[str], maximum: int) -> str:
    """The first lines, one below the other."""
    shown = [line if len(line) <= 200 else f"{line[:199]}…" for line in lines[:maximum]]
    if len(lines) > maximum:
        shown.append(f"… and {len(lines) - maximum} more")
    return ("\n" + " " * 16).join(shown)


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("-n", "--model-name", help="Model of the weights, such as llama-2-chat.")
@click.option("-s", "--size-in-billions", "--model-size-in-billions", "billions", callback=read_size,
    help="Billions of parameters, such as 7B.")  # fmt: skip
@click.option(
    "--rms-norm-eps",
    type=NumberRange(0, 1, min_open=True, max_open=True),
    help="Epsilon of the RMS norms, such as 1e-5.",
)
@click.option(
    "--context-length",
    type=TokenCount(1 << 30),
    metavar="N",
    help="Context length that the model was trained on, in tokens.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def convert(source: Path, target: Path, billions: int | str | None, **arguments: Any) -> None:
    """Convert the ggmlv3 file IN to the GGUF file OUT."""
    from xinference.cli.progress import new_display
    from xinference.local_commands.convert import convert as run

    display = new_display()

    def progress(done: int, total: int | None, name: str) -> None:
        display.progress(name, done, total)

    try:
        notes = run(source, target, progress, size=billions, **arguments)
    finally:
        display.clear()
    for line in notes:
        note(f"  {line}")
    click.echo(str(target))
