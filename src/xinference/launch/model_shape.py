"""Dimensions and sizes of a model, read from the header of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from xinference.catalog.packing import Packing


class ModelShape(msgspec.Struct, frozen=True):
    """Dimensions and sizes of a model, read from the header of its weights; bytes and tokens."""

    weights_bytes: int
    kv_bytes_per_token: int
    trained_context: int
    vocab_size: int
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    bytes_by_type: Mapping[str, int] = {}
    """GGUF tensor type -> bytes of all tensors of this type."""
    element_bytes: int = 2
    """Bytes of one weight that is not quantized."""
    linear_bytes: int = 0
    """Bytes of the linear layers' weights: all weights but the vocabulary's; 0: none, or not known."""
    linear_bits: int = 16
    """Bits of one linear weight; 4 in GPTQ and AWQ."""
    packing: Packing | None = None
    """How the weights in a folder are packed; None: they are not, or it is not known."""
    layers: int = 0
    bitsandbytes: bool = False
    """Whether bitsandbytes packs the linear weights while they are loaded."""
    pooled: bool = False
    """Whether an answer is a vector or a score of the whole input, and has no tokens of its own."""
    architecture: str = ""
    """The class in config.json, or llama.cpp's name in a GGUF file; empty: not known."""
    draft_kv_bytes_per_token: int = 0
    """The same as `kv_bytes_per_token` in the model's own layers that draft tokens, if a launch uses them."""
    vision_elements: int = 0
    """Elements of the vision tower's width for each token of an image; 0: it reads no images, or it is not known."""
    vision_bytes: int = 0
    """Bytes of the weights that only images use; they are among `weights_bytes`. 0: none, or not known."""
    labels: int | None = None
    """Number of scores of a model that classifies; None: not known."""
    pooling_type: int | None = None
    """The number in a GGUF file: 0 none, 1 mean, 2 first token, 3 last token, 4 rank; None: the file has none."""
    writes_calls: bool | None = None
    """Whether the chat template in a GGUF file writes tool calls; None: not known."""

    def small_linear_bytes(self, limit: int) -> int:
        """Bytes of the linear matrices that are smaller than `limit`, in the form in which engines fuse them.

        The query, key and value matrices are fused to one, and so are the gate and up matrices of a feed-forward.
        """
        if not (self.linear_bytes and self.layers and self.heads):
            return 0
        output = self.hidden * self.hidden * self.linear_bits // 8
        first = output + 2 * output * (self.kv_heads or self.heads) // self.heads
        forward = max(0, self.linear_bytes // self.layers - first - output)
        matrices = (first, output, forward * 2 // 3, forward // 3)
        return self.layers * sum(size for size in matrices if size < limit)

    def of_rank(self, ranks: int) -> ModelShape:
        """The largest share of one of several nodes that have a sequence of the layers each, with the whole vocabulary.

        Rank 0 has the embeddings, and the last rank the output matrix.
        """
        layers = -(-self.layers // ranks) / self.layers if self.layers else 1 / ranks

        def share(size: int) -> int:
            return math.ceil(size * layers)

        vocabulary = self.weights_bytes - self.linear_bytes if self.linear_bytes else 0
        return msgspec.structs.replace(
            self,
            weights_bytes=vocabulary + share(self.weights_bytes - vocabulary),
            linear_bytes=share(self.linear_bytes),
            kv_bytes_per_token=share(self.kv_bytes_per_token),
            draft_kv_bytes_per_token=share(self.draft_kv_bytes_per_token),
            bytes_by_type={name: share(size) for name, size in self.bytes_by_type.items()},
            layers=-(-self.layers // ranks),
        )

    def splits_over(self, devices: int) -> bool:
        """Whether every layer can be split evenly over this number of devices.

        A device gets whole heads, and either whole key and value heads or a copy of a shared one.
        """
        if devices & (devices - 1):
            return False
        kv_heads = self.kv_heads or self.heads
        return self.heads % devices == 0 and (kv_heads % devices == 0 or devices % max(1, kv_heads) == 0)


#: Bytes of one element, by torch's names and the aliases that users write.
TYPE_BYTES = {"float32": 4, "float": 4, "fp32": 4, "bfloat16": 2, "bf16": 2, "float16": 2, "half": 2, "fp16": 2}


#: Bits of one weight in bitsandbytes: a block of 64 4-bit weights shares a 32-bit scale; a row of 8-bit weights shares
#: one scale, which is negligible.
BITSANDBYTES_BITS = {"4-bit": 4 + 32 / 64, "8-bit": 8.0}
#: Quantizations of a launch by which an engine packs weights as trained -> bits of one weight afterwards.
LOADING_BITS = {**BITSANDBYTES_BITS, "fp8": 8.0}
