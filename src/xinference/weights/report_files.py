"""Inspects one weight file by its header, or a model's folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.formats.ggml import read_ggml
from xinference.formats.gguf import GgufHeader, read_header
from xinference.formats.model_config import MAX_CONFIG, read_config
from xinference.formats.packing import QUANT_CONFIG_FILE, packing_of_types
from xinference.formats.safetensors import read_safetensors
from xinference.formats.weight_file import weight_file
from xinference.formats.weight_index import read_shard_names
from xinference.hubs.local_files import PART
from xinference.weights.file_source import FolderSource
from xinference.weights.report import PICKLES, Inspection, from_config
from xinference.weights.small_files import read_template, small_object


def is_later_part(name: str) -> bool:
    """Whether a GGUF file of this name is a part of a model, but not the first."""
    match = PART.fullmatch(name)
    return match is not None and int(match["index"]) != 1


def inspect_file(path: Path) -> Inspection:
    """The report of one file; its format is detected from its first bytes. Raises `Problem` 400 ``bad_weight_file``."""
    with weight_file(path, "a weight file, or the folder that contains it") as (file, size):
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
            notes=("a PyTorch checkpoint is a pickle, which can run code, so it is not opened",),
            no_engine="an engine needs the folder with its config.json, not one file",
        )
    return _of_ggml(path) if path.suffix == ".bin" else _of_gguf(path)


def _of_gguf(path: Path) -> Inspection:
    header = read_header(path)
    parts = [read_header(part) for part in parts_of(path)] if header.split_count > 1 else [header]
    return of_headers(str(path), header, parts)


def of_headers(what: str, header: GgufHeader, parts: Sequence[GgufHeader]) -> Inspection:
    """The report of a GGUF model by the headers of its parts; `header` is the one of the named file."""
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
        notes=(f"{missing} of its {header.split_count} parts are missing",) if missing else (),
        no_engine=_no_gguf_engine(header, missing),
    )


def _no_gguf_engine(header: GgufHeader, missing: int) -> str | None:
    if header.n_layers == 0 or header.architecture == "clip":
        return "it is a part of a model (a projector, a vocabulary), not a model"
    return "parts of it are missing" if missing else None


def parts_of(path: Path) -> list[Path]:
    """The existing parts of a split model in the part's folder, in order."""
    match = PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    names = [path.with_name(f"{match['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
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
        notes=(f"{header.tensor_count} tensors; config.json has the architecture, so inspect its folder",),
        no_engine="an engine needs the folder with its config.json, not one file",
    )


def inspect_folder(folder: Path) -> Inspection:
    """A model's folder with its config.json, or a folder with one model in one file.

    Raises:
        Problem: 400 ``bad_weight_file``; ``model_path_ambiguous``, which lists the files.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not (folder / "config.json").is_file():
        return _only_file(folder, files)
    source = FolderSource(folder)
    with weight_file(folder / "config.json", "the config.json of a model") as (file, size):
        quant_config = small_object(source, QUANT_CONFIG_FILE)
        config = read_config(file.read(min(size, MAX_CONFIG)), folder / "config.json", quant_config)
    weights = [path for path in files if path.suffix == ".safetensors"]
    by_type = _bytes_by_type(weights)
    if config.packing is None:
        config = replace(config, packing=packing_of_types(by_type))
    pickles = [] if weights else [path for path in files if path.suffix in PICKLES and "training_args" not in path.name]
    notes = [f"{', '.join(p.name for p in pickles)}: pickles, i.e. programs, so not opened"] if pickles else []
    missing = _missing_shards(folder)
    shown = weights or pickles
    reason = f"{', '.join(missing)} is missing" if missing else None if shown else "it has no weights"
    sizes = tuple((path.name, path.stat().st_size) for path in shown)
    report = from_config(str(folder), config, sizes)
    template = read_template(source)
    return replace(report, bytes_by_type=by_type or None, chat_template=template, notes=tuple(notes), no_engine=reason)


def _bytes_by_type(weights: Iterable[Path]) -> dict[str, int]:
    by_type: dict[str, int] = {}
    for header in map(read_safetensors, weights):
        for name, count in header.bytes_by_type.items():
            by_type[name] = by_type.get(name, 0) + count
    return by_type


def _only_file(folder: Path, files: list[Path]) -> Inspection:
    candidates = [p for p in files if p.suffix in (".gguf", ".bin", ".ggml") and "mmproj" not in p.name.lower()]
    firsts = [path for path in candidates if not is_later_part(path.name)]
    if len(firsts) == 1:
        return inspect_file(firsts[0])
    names = ", ".join(path.name for path in firsts[:20])
    raise bad_request(
        f"{folder} has several models: {names}." if firsts else f"{folder} has no config.json and no weight file.",
        hint="Name one file." if firsts else "Name a weight file, a model's folder, or an id such as org/repo.",
        code=Code.MODEL_PATH_AMBIGUOUS if firsts else Code.BAD_WEIGHT_FILE,
    )


def _missing_shards(folder: Path) -> list[str]:
    """The files of a split model's index that the folder does not have; the index itself if it is unreadable."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    names = read_shard_names(index)
    return sorted(name for name in names if not (folder / Path(name).name).is_file()) if names else [index.name]
