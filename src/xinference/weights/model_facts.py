"""The facts in a model's files, from a folder or a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import ModelFormat, ModelShapeFacts
from xinference.catalog.packing import Scheme
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.formats.gguf import GgufHeader
from xinference.formats.model_config import MAX_CONFIG, ModelConfig, read_config
from xinference.formats.packing import QUANT_CONFIG_FILE
from xinference.formats.pooling_config import longest_input, vector_length
from xinference.formats.tokenizer_config import MAX_TOKENIZER_CONFIG
from xinference.formats.untrusted_json import decoded
from xinference.weights.file_source import FileSource
from xinference.weights.gguf_models import GgufModel
from xinference.weights.small_files import read_template, small_object

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_GGUF_EMBEDDERS = ("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "t5encoder", "modern-bert")
#: Architecture suffixes of text generators; audio models are excluded by their `num_mel_bins`.
_TEXT_GENERATORS = ("CausalLM", "ForConditionalGeneration", "LMHeadModel")
_ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of a model; None and (): unknown."""

    model_format: ModelFormat
    architecture: str
    quantization: str
    """The quantization's name in launches; if the name of a GGUF file has none, the type of most of its tensors."""
    context_length: int | None = None
    chat_template: str | None = None
    parameters: int | None = None
    name: str | None = None
    """The model's name in the file's metadata."""
    size_label: str | None = None
    """Such as ``135M``, from the file's metadata."""
    embeds: bool = False
    """Whether the model is an embedding model, by its architecture or its pooling."""
    reranks: bool = False
    dimensions: int | None = None
    """Length of an embedding model's vectors."""
    generates: bool = False
    """Whether the model generates text, by its architecture."""
    vision: bool = False
    remote_code: bool = False
    """Whether its configuration names Python files of the repository that would be executed."""
    stop_token_ids: tuple[int, ...] = ()
    shape: ModelShapeFacts | None = None


def gguf_facts(source: FileSource, model: GgufModel) -> ModelFacts:
    """The facts in the header of a model's first file.

    Raises:
        Problem: 400 ``bad_weight_file``: the file can't be read, or is not a model.
    """
    header = source.gguf(model.files[0])
    if header.n_layers == 0 or header.architecture == "clip":
        raise bad_request(
            f"{model.files[0]} of {source.title} is a part of a model (a projector, a vocabulary), not a model.",
            hint="Name the model's own file.",
            code=Code.BAD_WEIGHT_FILE,
        )
    first = max(1, source.files[model.files[0]])
    label, name = header.metadata.get("general.size_label"), header.metadata.get("general.name")
    stops = [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return ModelFacts(
        model_format="ggufv2",
        architecture=header.architecture,
        quantization=model.quantization or header.quantization or "unknown",
        context_length=header.context_length,
        chat_template=header.chat_template,
        parameters=header.parameters * model.size_bytes // first,
        name=name if isinstance(name, str) else None,
        size_label=label if isinstance(label, str) else None,
        embeds=bool(header.pooling_type) or header.architecture in _GGUF_EMBEDDERS,
        reranks=header.is_reranker,
        dimensions=header.embedding_length,
        generates=not header.pooling_type and header.architecture not in _GGUF_EMBEDDERS,
        stop_token_ids=tuple(dict.fromkeys(s for s in stops if isinstance(s, int) and not isinstance(s, bool))),
        shape=_shape_of_gguf(header, header.parameters * model.size_bytes // first),
    )


def _shape_of_gguf(header: GgufHeader, parameters: int) -> ModelShapeFacts | None:
    counts = (header.n_heads, header.n_kv_heads, header.head_dim, header.embedding_length, header.vocab_size)
    if not all(counts):
        return None
    heads, kv_heads, head_dim, hidden, vocab = (int(count or 0) for count in counts)
    return ModelShapeFacts(
        parameters=parameters,
        layers=header.n_layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=hidden,
        vocab=vocab,
    )


def folder_facts(source: FileSource) -> ModelFacts:
    """The facts in config.json and the small files of its folder.

    Raises:
        Problem: 400 ``bad_weight_file``: no config.json, no weights, or weights that are programs (pickle).
    """
    data = _config_json(source)
    weights = {n: size for n, size in source.files.items() if n.endswith(".safetensors") and "/" not in n}
    if not weights:
        raise _no_safetensors(source)
    config = read_config(data, Path(f"{source.title}: config.json"), small_object(source, QUANT_CONFIG_FILE))
    fields: dict[str, Any] = msgspec.json.decode(data)
    vision = isinstance(fields.get("vision_config"), dict)
    ranks = config.architecture.endswith("ForSequenceClassification")
    parameters = _parameters(config, sum(weights.values()))
    embeds = "modules.json" in source.files or (_is_encoder(config.architecture) and not vision)
    pooled = embeds or ranks
    read = partial(_small_json, source)
    return ModelFacts(
        model_format=config.model_format,
        architecture=config.architecture,
        quantization=config.quantization,
        context_length=longest_input(read, config.context_length) if pooled else config.context_length,
        chat_template=read_template(source),
        parameters=parameters,
        embeds=embeds and not ranks,
        reranks=ranks and config.labels == 1,
        dimensions=vector_length(read, config.embedding_length),
        generates=any(word in config.architecture for word in _TEXT_GENERATORS) and "num_mel_bins" not in fields,
        vision=vision,
        remote_code=bool(fields.get("auto_map")),
        stop_token_ids=_stop_tokens(small_object(source, "generation_config.json"), fields),
        shape=_shape(config, parameters),
    )


def _config_json(source: FileSource) -> bytes:
    data = source.small("config.json", MAX_CONFIG)
    if data is None:
        raise bad_request(
            f"{source.title} has neither a config.json nor a GGUF file.",
            hint="Name a folder or repository with a model in GGUF or safetensors.",
            code=Code.BAD_WEIGHT_FILE,
        )
    return data


def _no_safetensors(source: FileSource) -> Problem:
    pickles = [name for name in source.files if name.endswith(_PICKLES) and "/" not in name]
    reason = f", and {pickles[0]} is a pickle. A pickle can run code, so it is not opened." if pickles else " at all."
    return bad_request(
        f"{source.title} has no safetensors{reason}",
        hint="Convert the weights to safetensors or GGUF, or name a repository that has them.",
        code=Code.BAD_WEIGHT_FILE,
    )


def _is_encoder(architecture: str) -> bool:
    """An encoder without a head, which transformers calls ``BertModel``."""
    return architecture.endswith("Model") and "LMHead" not in architecture


def _parameters(config: ModelConfig, weights_bytes: int) -> int | None:
    if config.packing is None:
        return weights_bytes // _ELEMENT_BYTES.get(config.dtype or "", 2)
    if config.packing.scheme is Scheme.OTHER:
        return None
    # The vocabulary's matrices are not packed.
    outside = (config.vocab_size or 0) * (config.embedding_length or 0) * (1 if config.tied else 2)
    return outside + int(max(0, weights_bytes - outside * 2) * 8 / config.packing.bits)


def _shape(config: ModelConfig, parameters: int | None) -> ModelShapeFacts | None:
    counts = (config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim, config.embedding_length)
    if parameters is None or config.vocab_size is None or config.latent_dim or not all(counts):
        return None
    layers, heads, kv_heads, head_dim, hidden = (int(count or 0) for count in counts)
    return ModelShapeFacts(
        parameters=parameters,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=hidden,
        vocab=config.vocab_size,
    )


def _stop_tokens(*configs: Mapping[str, Any]) -> tuple[int, ...]:
    """``eos_token_id`` of the first configuration that has it: one id or several."""
    for config in configs:
        value = config.get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        ids = tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0)
        if ids:
            return ids
    return ()


def _small_json(source: FileSource, name: str) -> Any:
    return decoded(source.small(name, MAX_TOKENIZER_CONFIG))
