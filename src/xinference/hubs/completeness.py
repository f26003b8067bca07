"""Checks whether weights without a file list are complete, by the files' own headers and indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xinference.errors import Problem
from xinference.formats.gguf import read_header
from xinference.formats.untrusted_json import decoded_object
from xinference.formats.weight_index import read_shard_names

#: Maximum header size in bytes that the safetensors library itself reads.
_MAX_HEADER = 100_000_000
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def is_whole_file(path: Path) -> bool:
    """Whether a weight file exists and, if its header contains a size, has this size."""
    if not path.is_file():
        return False
    if path.suffix != ".gguf":
        return path.stat().st_size > 0
    try:
        read_header(path)
    except Problem:
        return False
    return True


def is_whole_folder(folder: Path) -> bool:
    """Whether a model's folder has its configuration, a tokenizer and all weight files of its index."""
    if not (folder / "config.json").is_file() or not any((folder / name).is_file() for name in _TOKENIZERS):
        return False
    for suffix, stem in ((".safetensors", "model"), (".bin", "pytorch_model")):
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            shards = read_shard_names(index)
            return bool(shards) and all(_is_whole_weight(folder / name) for name in shards)
        if (folder / f"{stem}{suffix}").exists():
            return _is_whole_weight(folder / f"{stem}{suffix}")
    return False


def _is_whole_weight(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return path.is_file() and path.stat().st_size == _safetensors_size(path)
    return path.is_file() and path.stat().st_size > 0


def _safetensors_size(path: Path) -> int:
    """The size in bytes by the file's own header (https://huggingface.co/docs/safetensors); -1: unreadable."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = decoded_object(file.read(length)) if length <= _MAX_HEADER else {}
    ends = [
        entry["data_offsets"][1]
        for name, entry in header.items()
        if name != "__metadata__" and isinstance(entry, dict) and _is_range(entry.get("data_offsets"))
    ]
    return 8 + length + max(ends) if ends else -1


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(end, int) for end in value)
