"""What the weights say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelShape:
    """What the weights say of themselves; bytes and tokens."""

    weights_bytes: int
    kv_bytes_per_token: int
    trained_context: int
    vocab_size: int
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    bytes_by_type: Mapping[str, int] = field(default_factory=dict)
    """GGUF's tensor type -> bytes of it."""
    element_bytes: int = 2
    """Of one weight, where it is not quantized."""
    linear_bytes: int = 0
    """Bytes of the weights that layers multiply by: all but the vocabulary's; 0: none, or not known."""
    linear_bits: int = 16
    """Of one such weight; 4 in GPTQ and AWQ."""
    layers: int = 0
    bitsandbytes: bool = False
    """Whether they are packed while they are loaded."""

    def small_linear_bytes(self, limit: int) -> int:
        """Bytes of those matrices of `linear_bytes` that are smaller than `limit`, joined as engines join them.

        Queries, keys and values are one matrix, and the two that open a gated feed-forward are another.
        """
        if not (self.layers and self.heads and self.linear_bytes):
            return 0
        output = self.hidden * self.hidden * self.linear_bits // 8
        first = output + 2 * output * (self.kv_heads or self.heads) // self.heads
        forward = max(0, self.linear_bytes // self.layers - first - output)
        matrices = (first, output, forward * 2 // 3, forward // 3)
        return self.layers * sum(size for size in matrices if size < limit)

    def splits_over(self, devices: int) -> bool:
        """Whether every layer can be cut into so many equal slices: whole heads, and keys shared or cut evenly."""
        if devices & (devices - 1):
            return False
        kv_heads = self.kv_heads or self.heads
        return self.heads % devices == 0 and (kv_heads % devices == 0 or devices % max(1, kv_heads) == 0)


#: Bytes of one element; the names are torch's and those that users gave it.
TYPE_BYTES = {"float32": 4, "float": 4, "fp32": 4, "bfloat16": 2, "bf16": 2, "float16": 2, "half": 2, "fp16": 2}


#: bitsandbytes: 4-bit blocks of 64 share a 32-bit maximum; 8-bit rows share one, which is next to nothing.
BITSANDBYTES_BITS = {"4-bit": 4 + 32 / 64, "8-bit": 8.0}
