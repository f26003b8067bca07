"""Copies of weights that state a longer trained context than the model has: for times, not for texts."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xinference.formats.gguf import read_header

_UINT32 = 4


@contextmanager
def weights_for(weights: Path, context: int) -> Iterator[Path]:
    """The weights, or a copy that states `context` trained tokens if the file states fewer; deletes the copy.

    Raises:
        Problem: ``bad_weight_file``: not a GGUF file.
        ValueError: the file states no trained context in 32 bits.
    """
    stated = read_header(weights).context_length or 0
    if stated >= context:
        yield weights
        return
    print(
        f"the model was trained with {stated} tokens: a copy of its file states {context}; texts beyond {stated} tokens"
        " are not those of a trained model, so only the times count",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / weights.name
        shutil.copyfile(weights, copy)
        state_context(copy, context)
        yield copy


def state_context(weights: Path, context: int) -> None:
    """Write `context` over the trained context that a GGUF file states.

    Raises:
        ValueError: the file states none in 32 bits.
    """
    header = read_header(weights)
    key = f"{header.architecture}.context_length".encode()
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<I", _UINT32)
    with weights.open("r+b") as file:
        position = file.read(header.data_offset).find(entry)
        if position < 0:
            raise ValueError(f"{weights} has no {key.decode()} of 32 bits")
        file.seek(position + len(entry))
        file.write(struct.pack("<I", context))
