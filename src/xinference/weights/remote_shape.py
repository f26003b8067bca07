"""Reads the shape of weights that are still on a hub: the header of a file by ranges, or a folder's config.json.

The content is not trusted: the readers of the formats check it, and the hub's reader limits the fetched bytes.
Blocking; run in a thread, with a time limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from xinference.catalog.models import ModelVersion, Source
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.formats.ggml import read_numbers
from xinference.formats.gguf import GgufHeader, read_header_of
from xinference.formats.llama_facts import facts_for
from xinference.formats.model_config import MAX_CONFIG, read_config
from xinference.formats.packing import QUANT_CONFIG_FILE
from xinference.formats.safetensors import read_safetensors_of
from xinference.formats.untrusted_json import decoded
from xinference.hubs.base import FetchPreview, RemoteFile
from xinference.hubs.selection import wanted_names
from xinference.launch.model_shape import ModelShape
from xinference.weights.shape_reader import WEIGHT_SUFFIXES, completed, folder_shape, gguf_shape, pooled_shape

#: Bytes of one element of a key or a value in a cache of 16 bits.
_CACHE_BYTES = 2
#: Maximum size of the small files that are read, in bytes: a configuration is smaller, a vocabulary larger.
MAX_SMALL = 1 << 20


def read_remote_shape(preview: FetchPreview, version: ModelVersion, source: Source) -> ModelShape | None:
    """The shape of a version's weights, with the projectors among its files; None: the hub has no header to read.

    Raises:
        Problem: 400 ``bad_weight_file``, the file is damaged or not a model; or a problem of the hub.
    """
    if preview.open is None:
        return None
    names = wanted_names(version, source)
    if names is None:
        shape = _folder_shape(preview)
        pooled = version.family.model_type != "LLM"
        return pooled_shape(shape, partial(_small_json, preview)) if pooled else shape
    sizes = {file.name: file.size or 0 for file in preview.files}
    projectors = sum(sizes[name] for name in source.projectors if name in sizes and name not in names)
    if version.spec.model_format == "ggmlv3" and not names[0].endswith(".gguf"):
        shape = _ggml_shape(preview, version, names[0], sum(sizes[name] for name in names))
    else:
        shape = _gguf_shape(preview, names, sizes)
    return msgspec.structs.replace(shape, weights_bytes=shape.weights_bytes + projectors)


def _gguf_shape(preview: FetchPreview, names: tuple[str, ...], sizes: dict[str, int]) -> ModelShape:
    # The parts of a file that is joined after the fetch have one header together, which begins in the first part.
    whole = sum(sizes[name] for name in names)
    first = _read_gguf(preview, names[0], sizes[names[0]] if _is_split(names) else whole)
    others = names[1:] if first.split_count > 1 else ()
    return gguf_shape([first, *(_read_gguf(preview, name, sizes[name]) for name in others)])


def _read_gguf(preview: FetchPreview, name: str, size: int) -> GgufHeader:
    assert preview.open is not None
    with preview.open(name) as file:
        return read_header_of(file, size, Path(name))


def _is_split(names: tuple[str, ...]) -> bool:
    return all(name.lower().endswith(".gguf") for name in names)


def _ggml_shape(preview: FetchPreview, version: ModelVersion, name: str, size: int) -> ModelShape:
    assert preview.open is not None
    with preview.open(name) as file:
        numbers = read_numbers(file, Path(name), size)
    facts = facts_for(version)
    key_width = numbers.n_embd // facts.n_gqa
    return ModelShape(
        weights_bytes=size,
        kv_bytes_per_token=numbers.n_layers * 2 * key_width * _CACHE_BYTES,
        trained_context=facts.context_length,
        vocab_size=numbers.n_vocab,
        hidden=numbers.n_embd,
        heads=numbers.n_head,
    )


def _folder_shape(preview: FetchPreview) -> ModelShape:
    assert preview.open is not None
    config = next(file for file in preview.files if file.name == "config.json")
    with preview.open(config.name) as file:
        numbers = read_config(file.read(MAX_CONFIG), Path(config.name), _small_json(preview, QUANT_CONFIG_FILE))
    if numbers.dtype is None and numbers.packing is None:
        numbers = completed(numbers, _types_of_first(preview))
    return folder_shape(numbers, sum(file.size or 0 for file in preview.files if _is_weight(file)))


def _types_of_first(preview: FetchPreview) -> Mapping[str, int]:
    """The bytes of each type in the first file of safetensors; empty: its header cannot be read."""
    first = next((file for file in preview.files if _is_weight(file) and file.name.endswith(".safetensors")), None)
    if first is None or first.size is None or preview.open is None:
        return {}
    try:
        with preview.open(first.name) as file:
            return read_safetensors_of(file, first.size, Path(first.name)).bytes_by_type
    except Problem as problem:
        if problem.code != Code.BAD_WEIGHT_FILE:
            raise
        return {}  # the plan is made again after the download, and the engine names what is wrong


def _small_json(preview: FetchPreview, name: str) -> Any:
    """The decoded JSON of a small file; None if the hub does not have it, or it is larger."""
    sizes = {file.name: file.size for file in preview.files}
    size = sizes.get(name)
    if preview.open is None or size is None or size > MAX_SMALL:
        return None
    with preview.open(name) as file:
        return decoded(file.read(size))


def _is_weight(file: RemoteFile) -> bool:
    path = PurePosixPath(file.name)
    return path.suffix in WEIGHT_SUFFIXES and len(path.parts) == 1
