"""`xinference inspect` and `convert`: weights where they lie, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from xinference.cli.options.version_options import read_size
from xinference.cli.output import clean, note, print_json, size

Json = dict[str, Any]
_TEMPLATE_LINES = 5
_FILES_SHOWN = 20


@click.command()
@click.argument("what", metavar="FILE|FOLDER|HUB-ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def inspect(what: str, as_json: bool) -> None:
    """Show what a weight file, a model's folder or a repository (org/repo on Hugging Face) holds."""
    from xinference.local_commands.inspect import inspect as look

    found = look(what)
    if as_json:
        print_json(found)
    else:
        click.echo(clean(inspection_text(found)))


def inspection_text(found: Json) -> str:
    """An inspection for people: what is known, then each engine."""
    per_token, full, context = found["kv_bytes_per_token"], found["kv_bytes_full"], found["context_length"]
    cache = f"{size(per_token)} a token" if per_token else None
    if cache and full:
        cache += f", {size(full)} for {context} tokens"
    facts = {
        "Format": found["model_format"],
        "Architecture": found["architecture"],
        "Quantization": found["quantization"],
        "Size": size(found["size_bytes"]),
        "Layers": found["layers"],
        "Heads": _heads(found),
        "Context": f"{context} tokens" if context else None,
        "Embedding": found["embedding_length"],
        "Vocabulary": found["vocab_size"],
        "KV cache": cache,
        "Tensors": ", ".join(f"{name} {size(count)}" for name, count in (found["bytes_by_type"] or {}).items()),
        "Files": _indented([f"{file['name']} ({size(file['size_bytes'])})" for file in found["files"]], _FILES_SHOWN),
        "Template": _indented((found["chat_template"] or "").splitlines(), _TEMPLATE_LINES),
        "Notes": _indented(list(found["notes"]), len(found["notes"])),
    }
    lines = [found["what"]]
    lines += [f"  {name + ':':<14}{value}" for name, value in facts.items() if value]
    lines += ["Engines:", *_engine_lines(found["engines"])]
    return "\n".join(lines)


def _heads(found: Json) -> str | None:
    if not found["heads"]:
        return None
    parts = [str(found["heads"])]
    if found["kv_heads"]:
        parts.append(f"{found['kv_heads']} for keys and values")
    if found["head_dim"]:
        parts.append(f"{found['head_dim']} wide")
    return ", ".join(parts)


def _engine_lines(engines: Mapping[str, str | None]) -> list[str]:
    return [f"  {name + ':':<14}{'yes' if reason is None else f'no: {reason}'}" for name, reason in engines.items()]


def _indented(lines: list[str], most: int) -> str:
    """The first lines, one under the other."""
    shown = [line if len(line) <= 200 else f"{line[:199]}…" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"… and {len(lines) - most} more")
    return ("\n" + " " * 16).join(shown)


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("-n", "--model-name", help="The model whose weights these are, such as llama-2-chat.")
@click.option("-s", "--size-in-billions", "--model-size-in-billions", "billions", callback=read_size)
@click.option("--rms-norm-eps", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Such as 1e-5.")
@click.option("--context-length", type=click.IntRange(1, 1 << 30), help="Tokens the model was trained with.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def convert(source: Path, target: Path, billions: int | str | None, **given: Any) -> None:
    """Turn the ggmlv3 file IN into the GGUF file OUT."""
    from xinference.cli.progress import new_display
    from xinference.local_commands.convert import convert as run

    display = new_display()

    def progress(done: int, total: int | None, name: str) -> None:
        display.progress(name, done, total)

    try:
        told = run(source, target, progress, size=billions, **given)
    finally:
        display.clear()
    for line in told:
        note(f"  {line}")
    click.echo(str(target))
