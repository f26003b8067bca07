"""Reads a model's ``config.json`` (the format of Hugging Face's transformers): counts and quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.packing import PackedFormat, Packing
from xinference.formats.cursor import bad_weight_file
from xinference.formats.packing import read_packing

#: Maximum size that is read, in bytes.
MAX_CONFIG = 16 << 20
#: A larger number of patches in a row that become one token is not one.
MAX_MERGE = 64
#: Models whose first position has the number after that of the padding token, so that fewer are left for tokens.
_POSITIONS_AFTER_PADDING = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "xmod", "ibert"}
)


@dataclass(frozen=True)
class ModelConfig:
    """Numbers that are not in the file are None."""

    architecture: str
    """Class name, such as ``LlamaForCausalLM``."""
    n_layers: int | None
    n_heads: int | None
    n_kv_heads: int | None
    head_dim: int | None
    context_length: int | None
    """Tokens."""
    embedding_length: int | None
    vocab_size: int | None
    packing: Packing | None
    """How the weights are packed; None: they are not, by the configuration."""
    dtype: str | None
    """Type of the weights, such as ``bfloat16``."""
    latent_dim: int | None = None
    """Cached elements of one token and layer, all heads together, with latent attention (DeepSeek's MLA)."""
    tied: bool = False
    """Whether the output matrix is the embedding matrix, and stored once."""
    cached_layers: int | None = None
    """Layers that store keys and values; the others have linear attention, with a state of constant size."""
    labels: int | None = None
    """Number of scores of a model that classifies."""
    draft_layers: int | None = None
    """Layers that predict further tokens; they are not among `n_layers`."""
    vision_elements: int = 0
    """Elements of the vision tower's width for each token of an image: several patches make one token; 0: no tower."""

    @property
    def model_format(self) -> PackedFormat:
        return self.packing.model_format if self.packing else "pytorch"

    @property
    def quantization(self) -> str:
        """The name in launches: ``none``, ``4-bit``, ``Int4``; or a method that launches do not support."""
        return self.packing.quantization if self.packing else "none"

    def draft_kv_bytes_per_token(self, type_bytes: int = 2) -> int:
        """Bytes of KV cache for one token in the layers that predict further tokens."""
        if not self.draft_layers or not self.n_layers:
            return 0
        return (self.kv_bytes_per_token(type_bytes) or 0) // self.n_layers * self.draft_layers

    def kv_bytes_per_token(self, type_bytes: int = 2) -> int | None:
        """Bytes of KV cache for one token, `type_bytes` (2: f16) each element."""
        layers = self.n_layers if self.cached_layers is None else self.cached_layers
        if layers and self.latent_dim:
            return layers * self.latent_dim * type_bytes
        if not (layers and self.n_kv_heads and self.head_dim):
            return None
        return layers * self.n_kv_heads * 2 * self.head_dim * type_bytes


def read_config(data: bytes, path: Path, quant_config: Any = None) -> ModelConfig:
    """Parse a ``config.json``; `path` is its name in messages.

    Args:
        quant_config: the decoded hf_quant_config.json of the folder; None: it has none.

    Raises:
        Problem: 400 ``bad_weight_file``: not a JSON object, or a field that is not a number.
    """
    try:
        whole = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_weight_file(path, f"is not a JSON object ({error})", "Download it again.") from None
    # In vision and audio models, the numbers of the language model are one level down.
    inner = whole.get("text_config")
    fields = whole | inner if isinstance(inner, dict) else whole
    counts = _Counts(fields, path)
    heads = counts.first("num_attention_heads", "n_head", "num_heads")
    width = counts.first("hidden_size", "n_embd", "d_model")
    latent, rope = counts.first("kv_lora_rank"), counts.first("qk_rope_head_dim")
    return ModelConfig(
        architecture=_architecture(whole),
        n_layers=counts.first("num_hidden_layers", "n_layer", "num_layers"),
        n_heads=heads,
        n_kv_heads=counts.first("num_key_value_heads", "num_kv_heads", "multi_query_group_num") or heads,
        head_dim=counts.first("head_dim") or (width // heads if width and heads else None),
        context_length=_context_length(counts, fields),
        embedding_length=width,
        vocab_size=counts.first("vocab_size"),
        packing=read_packing(whole, quant_config if isinstance(quant_config, dict) else None),
        dtype=next((str(d) for d in (fields.get("torch_dtype"), fields.get("dtype")) if d), None),
        latent_dim=latent + (rope or 0) if latent else None,
        tied=fields.get("tie_word_embeddings") is True,
        cached_layers=_cached_layers(counts, fields),
        labels=_labels(whole),
        draft_layers=counts.first("num_nextn_predict_layers", "mtp_num_hidden_layers"),
        vision_elements=_vision_elements(whole, path),
    )


def _vision_elements(whole: Mapping[str, Any], path: Path) -> int:
    tower = whole.get("vision_config")
    if not isinstance(tower, dict):
        return 0
    counts = _Counts(tower, path)
    # Qwen2-VL calls the tower's width embed_dim, and that of the text model hidden_size. A tower of several stages, as
    # Florence 2 has, lists a width for each: its memory is not known.
    width = counts.first(*(name for name in ("embed_dim", "hidden_size") if not isinstance(tower.get(name), list))) or 0
    return width * min(_patches_of_token(whole, tower, counts), MAX_MERGE**2)


def _patches_of_token(whole: Mapping[str, Any], tower: Mapping[str, Any], counts: _Counts) -> int:
    """The patches of an image that become one token, in the forms of several makers."""
    merge = counts.first_number("spatial_merge_size")
    if merge is None:
        merge = whole.get("scale_factor", 1)
    share, tokens = whole.get("downsample_ratio"), whole.get("mm_tokens_per_image")
    if isinstance(share, float) and 1 / MAX_MERGE <= share < 1:
        return round(1 / share**2)
    size, patch = counts.first_number("image_size"), counts.first_number("patch_size")
    if isinstance(tokens, int) and tokens > 0 and size and patch:
        return -(-((size // patch) ** 2) // tokens)
    return merge**2 if isinstance(merge, int) and 0 < merge < MAX_MERGE else 1


def _cached_layers(counts: _Counts, fields: Mapping[str, Any]) -> int | None:
    """The number of layers with attention that is not linear, in the forms of several makers; None: all."""
    for name in ("layer_types", "layers_block_type"):
        kinds = fields.get(name)
        if isinstance(kinds, list) and kinds:
            return sum(isinstance(kind, str) and "attention" in kind and "linear" not in kind for kind in kinds)
    numbers = fields.get("attn_type_list")  # MiniMax's: 1 is full attention, 0 linear
    if isinstance(numbers, list) and numbers:
        return len([number for number in numbers if number == 1])
    layers, interval = counts.first("num_hidden_layers"), counts.first("full_attention_interval")
    return layers // interval if layers and interval else None


def _context_length(counts: _Counts, fields: Mapping[str, Any]) -> int | None:
    positions = counts.first("max_position_embeddings", "n_positions", "n_ctx", "seq_length")
    if positions is None or str(fields.get("model_type")) not in _POSITIONS_AFTER_PADDING:
        return positions
    padding = counts.first("pad_token_id")
    return max(1, positions - (1 if padding is None else padding) - 1)


def _labels(config: Mapping[str, Any]) -> int | None:
    number, names = config.get("num_labels"), config.get("id2label")
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    return len(names) if isinstance(names, dict) else None


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return str(config.get("model_type") or "unknown")


class _Counts:
    """Fields that must be counts; each has several possible names."""

    def __init__(self, fields: Mapping[str, Any], path: Path) -> None:
        self._fields = fields
        self._path = path

    def first(self, *names: str) -> int | None:
        for name in names:
            value = self._fields.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
                raise bad_weight_file(
                    self._path, f"has the {name} {value!r:.80}, which is not a count", "Download it again."
                )
            return value
        return None

    def first_number(self, name: str) -> int | None:
        """The field if it is a count; other forms, such as a list of height and width, are None."""
        return self.first(name) if isinstance(self._fields.get(name), int) else None
