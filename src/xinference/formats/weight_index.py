"""Reads the index of weights in several files: ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``."""

from __future__ import annotations

from pathlib import Path

from xinference.files.small_file import read_small
from xinference.formats.untrusted_json import decoded_object

#: Maximum size of an index that is read, in bytes; that of a model with 100,000 tensors has 10 MB.
MAX_INDEX = 64 << 20


def read_shard_names(index: Path) -> frozenset[str]:
    """The names of the weight files; empty: the index is damaged, larger than `MAX_INDEX`, or cannot be read."""
    try:
        data = read_small(index, MAX_INDEX)
    except OSError:
        return frozenset()
    weight_map = decoded_object(data).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    return frozenset(name for name in names if isinstance(name, str))
