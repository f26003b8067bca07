"""Computes the size of a GGUF file from the shape of its model, by llama.cpp's rules for each kind of tensor. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from xinference.catalog.models import ModelShapeFacts
from xinference.formats.tensor_types import TENSOR_TYPES

_BITS = {kind.name: kind.block_bytes * 8 / kind.block for kind in TENSOR_TYPES.values()}
#: Elements of a block of the K-quants; a tensor whose rows are no multiple of it gets another type.
_SUPER_BLOCK = 256
#: The type of a tensor whose rows do not fit into blocks of `_SUPER_BLOCK` (llama.cpp's `tensor_type_fallback`).
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
#: Quantization -> the type of most of its tensors.
MAIN_TYPES = {
    "q2_k": "Q2_K", "q3_k_s": "Q3_K", "q3_k_m": "Q3_K", "q3_k_l": "Q3_K", "q4_0": "Q4_0", "q4_1": "Q4_1",
    "q4_k_s": "Q4_K", "q4_k_m": "Q4_K", "q5_0": "Q5_0", "q5_1": "Q5_1", "q5_k_s": "Q5_K", "q5_k_m": "Q5_K",
    "q6_k": "Q6_K", "q8_0": "Q8_0", "iq4_nl": "IQ4_NL", "iq4_xs": "IQ4_XS", "mxfp4": "MXFP4",
    "f16": "F16", "fp16": "F16", "bf16": "BF16", "f32": "F32", "fp32": "F32",
}  # fmt: skip
#: Types that llama.cpp also uses for the output matrix; otherwise that is stored as Q6_K.
_WHOLE = frozenset({"Q8_0", "F16", "BF16", "F32"})
#: Quantization -> the types of single kinds of tensors that differ from `MAIN_TYPES`, each with its share of the layers
#: (llama.cpp's `llama_tensor_get_type`); ``some``: the layers of `_use_more_bits`.
_MIXES: Mapping[str, Mapping[str, tuple[str, float | str]]] = {
    "q2_k": {"v": ("Q3_K", 1), "out": ("Q3_K", 1), "down": ("Q3_K", 1)},
    "q3_k_m": {"v": ("Q4_K", 1), "out": ("Q4_K", 1), "down": ("Q4_K", 1)},
    "q3_k_l": {"v": ("Q5_K", 1), "out": ("Q5_K", 1), "down": ("Q5_K", 1)},
    "q4_k_s": {"v": ("Q5_K", 1 / 8), "down": ("Q5_K", 1 / 8)},
    "q4_k_m": {"v": ("Q6_K", "some"), "down": ("Q6_K", "some")},
    "q5_k_m": {"v": ("Q6_K", "some"), "down": ("Q6_K", "some")},
    "iq4_xs": {"v": ("Q5_K", 1), "down": ("Q5_K", 1 / 8)},
    "iq4_nl": {"v": ("Q5_K", 1), "down": ("Q5_K", 1 / 8)},
}
#: The same for Q2_K in files of 2023.
_EARLY_Q2 = {"v": ("Q4_K", 1.0), "out": ("Q4_K", 1.0), "down": ("Q4_K", 1.0)}
#: Query heads for each key and value head from which Q2_K stores the values as Q4_K.
_GROUPED = 4
#: Number of layers of the 70B models, whose values are stored with more bits because eight heads share them.
_LAYERS_70B = 80


def vocabulary_elements(shape: ModelShapeFacts) -> int:
    """Elements of the embedding and the output matrix, which are one matrix in some models."""
    return shape.vocab * shape.hidden * (1 if shape.tied else 2)


@dataclass(frozen=True, slots=True)
class _Matrices:
    """One kind of a model's matrices, all layers together."""

    kind: str
    elements: int
    row: int
    """Elements of one row."""


def gguf_bytes_by_type(shape: ModelShapeFacts, name: str, *, early: bool = False) -> dict[str, int]:
    """Tensor type -> bytes of a GGUF file with this quantization, a key of `MAIN_TYPES`, by llama.cpp's rules."""
    base = MAIN_TYPES[name]
    norms, layers = _layer_matrices(shape)
    by_type = {"F32": norms * 4}

    def add(elements: float, row: int, kind: str) -> None:
        fitting = _FALLBACK.get(kind, kind) if row % _SUPER_BLOCK else kind
        by_type[fitting] = by_type.get(fitting, 0) + int(elements * _BITS[fitting] / 8)

    vocabulary = shape.vocab * shape.hidden
    add(vocabulary, shape.hidden, base if base in _WHOLE else "Q6_K")
    if not shape.tied:
        add(vocabulary, shape.hidden, base)
    for matrices in layers:
        other, share = _exception(name, matrices.kind, shape, early=early)
        if share:
            add(matrices.elements * share, matrices.row, other)
        if share != 1:
            add(matrices.elements * (1 - share), matrices.row, base)
    return {kind: size for kind, size in by_type.items() if size}


@lru_cache(maxsize=1024)
def _layer_matrices(shape: ModelShapeFacts) -> tuple[int, tuple[_Matrices, ...]]:
    """The elements of the norms, and the matrices of the layers.

    The feed-forward has the parameters that no other tensor has.
    """
    norms = (2 * shape.layers + 1) * shape.hidden
    heads = shape.layers * shape.hidden * shape.heads * shape.head_dim
    keys = shape.layers * shape.hidden * shape.kv_heads * shape.head_dim
    forward = max(0, shape.parameters - vocabulary_elements(shape) - 2 * heads - 2 * keys - norms)
    per_width = 3 * shape.layers * shape.hidden
    width = forward // per_width if per_width else _SUPER_BLOCK  # only the number of parameters is known
    # In a mixture of experts, this is the width of all experts together: a multiple of that of one expert.
    return norms, (
        _Matrices("q", heads, shape.hidden),
        _Matrices("k", keys, shape.hidden),
        _Matrices("v", keys, shape.hidden),
        _Matrices("out", heads, shape.heads * shape.head_dim),
        _Matrices("up", forward - forward // 3, shape.hidden),
        _Matrices("down", forward // 3, width - width % 32),
    )


def _exception(name: str, kind: str, shape: ModelShapeFacts, *, early: bool) -> tuple[str, float]:
    """The other type of a kind of tensors, and its share of the layers."""
    base = MAIN_TYPES[name]
    if name == "q2_k" and early:
        return _EARLY_Q2.get(kind, (base, 0.0))
    if kind == "v" and shape.layers == _LAYERS_70B and base in ("Q3_K", "Q4_K"):
        return "Q5_K", 1.0
    if kind == "v" and name == "q2_k" and shape.heads >= _GROUPED * shape.kv_heads:
        return "Q4_K", 1.0
    other, share = _MIXES.get(name, {}).get(kind, (base, 0.0))
    return other, _more_bits_share(shape.layers) if isinstance(share, str) else share


@lru_cache(maxsize=256)
def _more_bits_share(layers: int) -> float:
    """The share of the layers that get more bits: the first and last eighth, and every third of the others."""
    eighth = layers // 8
    return sum(i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2 for i in range(layers)) / max(1, layers)
