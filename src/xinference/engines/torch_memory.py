"""Memory of the engines that run on torch: the type in which they hold weights, and their servers' overheads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from xinference.engines.memory_model import Dimensions
from xinference.launch.model_shape import BITSANDBYTES_BITS, TYPE_BYTES, ModelShape
from xinference.units import GIB, MIB

#: Tokens that vLLM and SGLang compute together at most by default (chunked prefill).
CHUNK = 8192


@dataclass(frozen=True)
class LoadedByTorch:
    """Computes what a torch engine holds of stored weights; see `memory_model.Loaded`."""

    cpu_type: str
    """What weights that are not quantized are widened or narrowed to on the CPU, where nothing else is asked for:
    kernels for 16 bits are slow or missing on most CPUs in torch, and vLLM brings its own."""
    type_option: str
    """The engine's option for another type."""

    def __call__(
        self, shape: ModelShape, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
    ) -> ModelShape:
        if model_format != "pytorch":
            return shape
        bits = BITSANDBYTES_BITS.get(quantization)
        if bits is not None:
            return _packed(shape, bits)
        width = self._type_bytes(options) if on_cpu else None
        if width is None or width == shape.element_bytes == 2:
            return shape
        return replace(
            shape,
            weights_bytes=shape.weights_bytes * width // shape.element_bytes,
            linear_bytes=shape.linear_bytes * width // shape.element_bytes,
            linear_bits=width * 8,
            kv_bytes_per_token=shape.kv_bytes_per_token * width // 2,
            element_bytes=width,
        )

    def _type_bytes(self, options: Mapping[str, Any]) -> int | None:
        asked = str(options.get(self.type_option) or "auto").removeprefix("torch.")
        return TYPE_BYTES.get(self.cpu_type if asked == "auto" else asked)


def _packed(shape: ModelShape, bits: float) -> ModelShape:
    """bitsandbytes packs the linear layers while it loads them; all other weights have 16 bits then."""
    others = (shape.weights_bytes - shape.linear_bytes) * 2 // shape.element_bytes if shape.linear_bytes else 0
    packed = int(shape.linear_bytes // shape.element_bytes * bits / 8)
    weights = others + packed if shape.linear_bytes else shape.weights_bytes
    return replace(shape, weights_bytes=weights, linear_bytes=0, element_bytes=2, bitsandbytes=True)


def served_cuda_overhead(dims: Dimensions) -> int:
    """vLLM's and SGLang's bytes on each device.

    CUDA's context and libraries take about 0.5 GiB, captured graphs 0.5 to 1 GiB; a chunk's activations are about
    8 rows as wide as the model (projections up and down, residual, norm) of 16 bits, its logits 32 bits for 256.
    """
    return int(1.5 * GIB) + CHUNK * 8 * 2 * dims.hidden + 256 * 4 * dims.vocab


def served_cpu_overhead(dims: Dimensions) -> int:
    """vLLM on the CPU: server, engine and worker, each a Python with torch; pages that they share count thrice.

    Measured by `benchmarks/memory.py --engines`: 1700 MiB of programs with a tiny model (560 + 540 + 590, and 12 for a
    tracker), 30 more for GPTQ's and AWQ's. oneDNN copies linear layers into an order of its own, and the memory of
    small originals stays with the process: 215 MiB of 202 for 135M parameters; 305 of 588, of which 324 are small, for
    6 layers of 2048. Packed weights are unpacked and packed anew, which leaves about three times their own bytes: 160
    MiB (GPTQ) and 200 (AWQ) of 54, and 438 (GPTQ) of 158. The whole cache is touched at the start.
    """
    kept = dims.kept_bytes * 3 + 30 * MIB if dims.packed else dims.kept_bytes
    return 1700 * MIB + kept + chunk_later(dims)


def chunk_later(dims: Dimensions) -> int:
    """The part of it that is touched by requests only: activations of a chunk in 32 bits."""
    return min(dims.cells, CHUNK) * 4 * 4 * dims.hidden
