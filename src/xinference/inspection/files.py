"""One weight file, by its header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xinference.formats.ggml import read_ggml
from xinference.formats.gguf import GgufHeader, read_header
from xinference.formats.safetensors import read_safetensors
from xinference.formats.weight_file import weight_file
from xinference.inspection.found import PICKLES, Inspection

_PART = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")


def is_later_part(name: str) -> bool:
    """Whether a GGUF file of this name is a part of a model, but not the first."""
    match = _PART.fullmatch(name)
    return match is not None and int(match["index"]) != 1


def inspect_file(path: Path) -> Inspection:
    """One file, judged by its first bytes. Raises `Problem` 400 ``bad_weight_file``."""
    with weight_file(path, "a weight file, or the folder that holds it") as (file, size):
        head = file.read(9)
    if head.startswith(b"GGUF"):
        return _of_gguf(path)
    if head[:4] == b"tjgg":
        return _of_ggml(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _of_safetensors(path)
    if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and path.suffix in PICKLES):
        return Inspection(
            what=str(path),
            model_format="pytorch",
            size_bytes=size,
            files=((path.name, size),),
            notes=("a PyTorch checkpoint: it is a program to be run (pickle), so it is not opened",),
            no_engine="an engine needs the folder with its config.json, not one file",
        )
    return _of_ggml(path) if path.suffix == ".bin" else _of_gguf(path)


def _of_gguf(path: Path) -> Inspection:
    header = read_header(path)
    parts = [read_header(part) for part in parts_of(path)] if header.split_count > 1 else [header]
    return of_headers(str(path), header, parts)


def of_headers(what: str, header: GgufHeader, parts: Sequence[GgufHeader]) -> Inspection:
    """A GGUF model by the headers of its parts, of which `header` is the one that was named."""
    by_type: dict[str, int] = {}
    for part in parts:
        for name, size in part.bytes_by_type.items():
            by_type[name] = by_type.get(name, 0) + size
    missing = header.split_count - len(parts)
    return Inspection(
        what=what,
        model_format="ggufv2",
        size_bytes=sum(part.file_size for part in parts),
        files=tuple((part.path.name, part.file_size) for part in parts),
        architecture=header.architecture,
        quantization=header.quantization,
        layers=header.n_layers or None,
        heads=header.n_heads or None,
        kv_heads=header.n_kv_heads or None,
        head_dim=header.head_dim or None,
        context_length=header.context_length,
        embedding_length=header.embedding_length,
        vocab_size=header.vocab_size,
        bytes_by_type=by_type,
        kv_bytes_per_token=header.kv_bytes_per_token() or None,
        chat_template=header.chat_template,
        notes=(f"{missing} of its {header.split_count} parts are missing here",) if missing else (),
        no_engine=_no_gguf_engine(header, missing),
    )


def _no_gguf_engine(header: GgufHeader, missing: int) -> str | None:
    if header.n_layers == 0 or header.architecture == "clip":
        return "it is a part of a model (a projector, a vocabulary), not a model"
    return "parts of it are missing" if missing else None


def parts_of(path: Path) -> list[Path]:
    """The parts that lie beside a part, in their order."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    names = [path.with_name(f"{match['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, min(count, 9999) + 1)]
    return [name for name in names if name.is_file()]


def _of_ggml(path: Path) -> Inspection:
    header = read_ggml(path)
    return Inspection(
        what=str(path),
        model_format="ggmlv3",
        size_bytes=header.file_size,
        files=((path.name, header.file_size),),
        architecture="llama",
        quantization=header.quantization,
        layers=header.n_layers,
        heads=header.n_head,
        kv_heads=header.n_kv_heads,
        head_dim=header.head_dim,
        embedding_length=header.n_embd,
        vocab_size=header.n_vocab,
        bytes_by_type=header.bytes_by_type,
        kv_bytes_per_token=header.kv_bytes_per_token(),
        notes=("context length and chat template are not in a ggmlv3 file; `xinference convert` adds them",),
    )


def _of_safetensors(path: Path) -> Inspection:
    header = read_safetensors(path)
    return Inspection(
        what=str(path),
        model_format="pytorch",
        size_bytes=header.file_size,
        files=((path.name, header.file_size),),
        bytes_by_type=header.bytes_by_type,
        notes=(f"{header.tensor_count} tensors; what they make is told by config.json, so inspect its folder",),
        no_engine="an engine needs the folder with its config.json, not one file",
    )
