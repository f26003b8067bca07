"""Reads the longest input and the vector's length of an embedding model from the files next to its config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Files of sentence-transformers with the longest input, one for each architecture of its first releases.
LIMIT_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
TOKENIZER_FILE = "tokenizer_config.json"
MODULES_FILE = "modules.json"
#: A larger limit of a tokenizer means that it has none.
MAX_LIMIT = 1 << 31

ReadJson = Callable[[str], Any]
"""Returns the decoded JSON of a file; None: the file does not exist or is not JSON."""


def longest_input(read: ReadJson, trained_context: int | None) -> int | None:
    """The longest input in tokens, which may be shorter than the trained context; None: not known.

    A longer input is truncated by the libraries for such models, and refused by engines.
    """
    limits = [_count(read(name), "max_seq_length") for name in LIMIT_FILES]
    limits += [_count(read(TOKENIZER_FILE), "model_max_length"), trained_context]
    return min((limit for limit in limits if limit), default=None)


def vector_length(read: ReadJson, hidden: int | None) -> int | None:
    """The number of dimensions of a vector: the model's width, unless a module changes it; None: not known."""
    modules = read(MODULES_FILE)
    if not isinstance(modules, list):
        return hidden
    length = hidden
    for module in modules:
        kind, path = _text(module, "type").rpartition(".")[2], _text(module, "path")
        if kind == "Dense":
            length = _count(read(f"{path}/config.json"), "out_features")
        elif kind == "Pooling":
            length = _pooled_length(read(f"{path}/config.json"), hidden)
    return length


def _pooled_length(pooling: Any, hidden: int | None) -> int | None:
    if not isinstance(pooling, Mapping) or hidden is None:
        return hidden
    modes = pooling.get("pooling_mode")
    old = sum(value is True for name, value in pooling.items() if name.startswith("pooling_mode_"))
    return hidden * max(1, len(modes) if isinstance(modes, list) else old)


def _count(fields: Any, name: str) -> int | None:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_LIMIT
    return value if is_count else None


def _text(fields: Any, name: str) -> str:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return value if isinstance(value, str) else ""
