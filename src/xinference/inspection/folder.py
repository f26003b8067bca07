"""A model's folder: its config.json, its safetensors' headers, its chat template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from xinference.errors import bad_request
from xinference.formats.model_config import MAX_CONFIG, read_config
from xinference.formats.safetensors import read_safetensors
from xinference.formats.tokenizer_config import MAX_TOKENIZER_CONFIG, template_in
from xinference.formats.weight_file import weight_file
from xinference.inspection.files import inspect_file, is_later_part
from xinference.inspection.found import PICKLES, Inspection, from_config


def inspect_folder(folder: Path) -> Inspection:
    """A model's folder with its config.json, or a folder with one model in one file.

    Raises:
        Problem: 400 ``bad_weight_file``; ``model_path_ambiguous``, listing the files.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not (folder / "config.json").is_file():
        return _only_file(folder, files)
    with weight_file(folder / "config.json", "the config.json of a model") as (file, size):
        config = read_config(file.read(min(size, MAX_CONFIG)), folder / "config.json")
    weights = [path for path in files if path.suffix == ".safetensors"]
    headers = [read_safetensors(path) for path in weights]
    by_type: dict[str, int] = {}
    for header in headers:
        for name, count in header.bytes_by_type.items():
            by_type[name] = by_type.get(name, 0) + count
    pickles = [] if weights else [path for path in files if path.suffix in PICKLES and "training_args" not in path.name]
    notes = [f"{', '.join(p.name for p in pickles)}: programs to be run (pickle), so not opened"] if pickles else []
    missing = _missing_shards(folder)
    here = weights or pickles
    why = f"{', '.join(missing)} is missing" if missing else None if here else "it has no weights"
    sizes = tuple((path.name, path.stat().st_size) for path in here)
    found = from_config(str(folder), config, sizes)
    template = _chat_template(folder)
    return replace(found, bytes_by_type=by_type or None, chat_template=template, notes=tuple(notes), no_engine=why)


def _only_file(folder: Path, files: list[Path]) -> Inspection:
    candidates = [p for p in files if p.suffix in (".gguf", ".bin", ".ggml") and "mmproj" not in p.name.lower()]
    firsts = [path for path in candidates if not is_later_part(path.name)]
    if len(firsts) == 1:
        return inspect_file(firsts[0])
    names = ", ".join(path.name for path in firsts[:20])
    raise bad_request(
        f"{folder} holds several models: {names}." if firsts else f"{folder} holds no config.json and no weight file.",
        hint="Name one file." if firsts else "Name a weight file, a model's folder, or an id such as org/repo.",
        code="model_path_ambiguous" if firsts else "bad_weight_file",
    )


def _missing_shards(folder: Path) -> list[str]:
    """What the index of a split model names and the folder does not have; an unreadable index names itself."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    names = {str(name) for name in (_json(index).get("weight_map") or {index.name: "its index"}).values()}
    return sorted(name for name in names if not (folder / Path(name).name).is_file())


def _chat_template(folder: Path) -> str | None:
    """Jinja source: a file of its own in present models, a field of the tokenizer's configuration in older ones."""
    own = folder / "chat_template.jinja"
    if own.is_file() and own.stat().st_size <= MAX_TOKENIZER_CONFIG:
        return own.read_text(errors="replace")
    return template_in(_json(folder / "tokenizer_config.json"))


def _json(path: Path) -> dict[str, Any]:
    """A small JSON object; {} if it is not there or is none."""
    try:
        if path.stat().st_size > MAX_TOKENIZER_CONFIG:
            return {}
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
