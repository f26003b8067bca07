"""Reads the header or configuration of weights into a `ModelShape`. Blocking; run in a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import ModelVersion
from xinference.engines.base import ExtraWeightFile
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.formats.chat_template import writes_tool_calls
from xinference.formats.ggml import read_ggml
from xinference.formats.gguf import GgufHeader, read_header
from xinference.formats.llama_facts import disagreements, facts_for
from xinference.formats.model_config import MAX_CONFIG, ModelConfig, read_config
from xinference.formats.packing import QUANT_CONFIG_FILE, packing_of_types
from xinference.formats.pooling_config import ReadJson, longest_input
from xinference.formats.safetensors import read_part_bytes, read_safetensors
from xinference.formats.tokenizer_config import MAX_TOKENIZER_CONFIG
from xinference.formats.untrusted_json import decoded
from xinference.formats.weight_file import weight_file
from xinference.hubs.local_files import parts_of
from xinference.launch.model_shape import TYPE_BYTES, ModelShape
from xinference.weights.conversion import _is_gguf
from xinference.weights.file_source import FolderSource
from xinference.weights.small_files import read_tool_template

#: Suffixes of a folder's weight files, pickles included.
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth"})

#: Type of stored weights -> its name in a configuration.
STORED_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

#: The modules that only images use, by the names that transformers gives them.
VISION_MODULES = frozenset({"visual", "vision_tower", "vision_model", "multi_modal_projector", "connector"})

#: The note of a family that calls tools, and whose file has a chat template without them.
UNWRITTEN_CALLS = "tools: the chat template in the file writes no tools and calls, so requests with tools are refused"
#: The same for a folder: the engine may have a parser of the calls all the same.
UNTOLD_TOOLS = "tools: the chat template in the weights has no place for them, so the model is not told of any"


def read_shape(
    path: Path, version: ModelVersion, extra_files: Sequence[ExtraWeightFile] = ()
) -> tuple[ModelShape, tuple[str, ...]]:
    """The shape of the weights at `path` and notes about them, with the bytes and the caches of `extra_files`.

    Raises:
        Problem: 400 ``bad_weight_file``, which names the file and the fault.
    """
    shape, notes = _weights_shape(path, version)
    if version.family.model_type != "LLM":
        read = partial(_small_json, path) if path.is_dir() else no_small_files
        shape = pooled_shape(shape, read)
    for file in extra_files:
        shape = with_extra(shape, file)
    return shape, notes


def _weights_shape(path: Path, version: ModelVersion) -> tuple[ModelShape, tuple[str, ...]]:
    if version.spec.model_format == "ggmlv3" and not _is_gguf(path):
        return _ggml_shape(path, version)
    if path.is_dir():
        return _folder_shape(path), _untold_tools(path, version)
    shape = _gguf_shape(path)
    return shape, unwritten_calls(shape, version)


def unwritten_calls(shape: ModelShape, version: ModelVersion) -> tuple[str, ...]:
    """The note on a file whose chat template has no tools, although the family calls them."""
    family = version.family
    unwritten = shape.writes_calls is False and family.chat_template is None and "tools" in family.model_ability
    return (UNWRITTEN_CALLS,) if unwritten else ()


def _untold_tools(folder: Path, version: ModelVersion) -> tuple[str, ...]:
    """The note on a folder whose chat template has no place for tools, although the family calls them.

    Without any template, the engine has its own way to write the prompt.
    """
    if "tools" not in version.family.model_ability or version.family.chat_template is not None:
        return ()
    template = read_tool_template(FolderSource(folder))
    return () if template is None or "tools" in template else (UNTOLD_TOOLS,)


def pooled_shape(shape: ModelShape, read: ReadJson) -> ModelShape:
    """The shape of an embedding model or a reranker; `read` reads the files that may limit its inputs."""
    return msgspec.structs.replace(shape, trained_context=longest_input(read, shape.trained_context or None) or 0)


def no_small_files(name: str) -> None:
    """A `ReadJson` of weights in one file."""


def _small_json(folder: Path, name: str) -> Any:
    """The decoded JSON of a small file; None if it does not exist or is not JSON."""
    if not (folder / name).is_file():
        return None
    with weight_file(folder / name, f"a readable {name}") as (file, size):
        return decoded(file.read(min(size, MAX_TOKENIZER_CONFIG)))


def _gguf_shape(path: Path) -> ModelShape:
    header = read_header(path)
    return gguf_shape([read_header(part) for part in parts_of(path)] if header.split_count > 1 else [header])


def gguf_shape(parts: Sequence[GgufHeader]) -> ModelShape:
    """The shape of a GGUF model. Of a split model the first file has the counts, and each part its own tensors."""
    header = parts[0]
    by_type: Counter[str] = Counter()
    for part in parts:
        by_type.update(part.bytes_by_type)
    return ModelShape(
        weights_bytes=sum(part.weights_bytes for part in parts),
        kv_bytes_per_token=header.kv_bytes_per_token(),
        trained_context=header.context_length or 0,
        vocab_size=header.vocab_size or 0,
        hidden=header.embedding_length or 0,
        heads=header.n_heads,
        kv_heads=header.n_kv_heads,
        bytes_by_type=by_type,
        architecture=header.architecture,
        pooling_type=header.pooling_type,
        writes_calls=writes_tool_calls(header.tool_template),
    )


def with_extra(shape: ModelShape, file: ExtraWeightFile) -> ModelShape:
    """The shape of a model with an additional weight file or folder on this machine.

    Raises:
        Problem: 400 ``bad_weight_file``: its header names another architecture, or cannot be read.
    """
    if file.is_own_layers:
        return msgspec.structs.replace(
            shape, kv_bytes_per_token=shape.kv_bytes_per_token + shape.draft_kv_bytes_per_token
        )
    weights, cache = _extra_folder(file.path) if file.path.is_dir() else _extra_file(file)
    return msgspec.structs.replace(
        shape,
        weights_bytes=shape.weights_bytes + weights,
        kv_bytes_per_token=shape.kv_bytes_per_token + (cache if file.has_cache else 0),
    )


def _extra_folder(folder: Path) -> tuple[int, int]:
    """The bytes of a folder's weights, and of its keys and values for one token."""
    draft = _folder_shape(folder)
    return draft.weights_bytes, draft.kv_bytes_per_token


def _extra_file(file: ExtraWeightFile) -> tuple[int, int]:
    header = read_header(file.path)
    if file.architecture is not None and header.architecture != file.architecture:
        raise Problem(
            Code.BAD_WEIGHT_FILE,
            f"{file.path} is not a {file.kind} but a separate model ({header.architecture}).",
            hint=file.hint,
        )
    return header.file_size, header.kv_bytes_per_token() if file.has_cache else 0


def _folder_shape(folder: Path) -> ModelShape:
    file = folder / "config.json"
    with weight_file(file, "the config.json of a model") as (opened, size):
        config = read_config(opened.read(min(size, MAX_CONFIG)), file, _small_json(folder, QUANT_CONFIG_FILE))
    weights = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    if config.packing is None:
        config = completed(config, _types_of_first(weights))
    shape = folder_shape(config, sum(path.stat().st_size for path in weights))
    return msgspec.structs.replace(shape, vision_bytes=_vision_bytes(weights)) if config.vision_elements else shape


def _vision_bytes(weights: Sequence[Path]) -> int:
    files = [path for path in weights if path.suffix == ".safetensors"]
    try:
        return sum(read_part_bytes(path, VISION_MODULES) for path in files)
    except Problem:  # the engine loads the files, and names what is wrong with them
        return 0


def _types_of_first(weights: Sequence[Path]) -> Mapping[str, int]:
    """The bytes of each type in the first of the files; empty: it has no tensors that can be read."""
    first = next((path for path in weights if path.suffix == ".safetensors"), None)
    try:
        return read_safetensors(first).bytes_by_type if first is not None else {}
    except Problem:  # the engine loads the file, and names what is wrong with it
        return {}


def completed(config: ModelConfig, types: Mapping[str, int]) -> ModelConfig:
    """The configuration with what it may leave out: the packing and the type that the bytes of each type show."""
    packing = config.packing or packing_of_types(types)
    stored = max((name for name in types if name in STORED_TYPES), key=lambda name: types[name], default=None)
    dtype = config.dtype or (STORED_TYPES[stored] if stored is not None else None)
    return replace(config, packing=packing, dtype=dtype)


def folder_shape(config: ModelConfig, weights: int) -> ModelShape:
    """The shape of a folder's model; `weights` is the bytes of its weight files."""
    element = TYPE_BYTES.get(config.dtype or "", 2)
    vocabulary = (config.vocab_size or 0) * (config.embedding_length or 0) * (1 if config.tied else 2) * element
    bits = 8 * element if config.packing is None else int(config.packing.bits)
    return ModelShape(
        weights_bytes=weights,
        kv_bytes_per_token=config.kv_bytes_per_token() or 0,
        trained_context=config.context_length or 0,
        vocab_size=config.vocab_size or 0,
        hidden=config.embedding_length or 0,
        heads=config.n_heads or 0,
        kv_heads=config.n_kv_heads or 0,
        layers=config.n_layers or 0,
        element_bytes=element,
        linear_bytes=max(0, weights - vocabulary) if vocabulary else 0,
        linear_bits=bits,
        packing=config.packing,
        architecture=config.architecture,
        draft_kv_bytes_per_token=config.draft_kv_bytes_per_token(),
        vision_elements=config.vision_elements,
        labels=config.labels,
    )


def _ggml_shape(path: Path, version: ModelVersion) -> tuple[ModelShape, tuple[str, ...]]:
    header, facts = read_ggml(path), facts_for(version)
    shape = ModelShape(
        weights_bytes=header.weights_bytes,
        kv_bytes_per_token=header.kv_bytes_per_token(),
        trained_context=facts.context_length,
        vocab_size=header.n_vocab,
        hidden=header.n_embd,
        heads=header.n_head,
        bytes_by_type=header.bytes_by_type,
    )
    notes = (
        f"ggmlv3 is converted to GGUF once; from the registry, because the file does not contain them: context "
        f"{facts.context_length}, RMS epsilon {facts.rms_norm_eps:g}, RoPE base {facts.rope_freq_base:g}, "
        f"BOS {facts.bos_token_id}, EOS {facts.eos_token_id}, the chat template",
        *disagreements(header, facts),
    )
    return shape, notes
