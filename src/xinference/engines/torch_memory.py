"""Memory of the torch engines: the types of loaded weights, and the overheads of their servers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from xinference.catalog.packing import Scheme
from xinference.engines.memory_model import Dimensions, MemoryModel
from xinference.engines.options.online_quantization import OnlineQuantization
from xinference.launch.model_shape import BITSANDBYTES_BITS, TYPE_BYTES, ModelShape
from xinference.units import GIB, MIB

#: Default maximum number of tokens that vLLM and SGLang compute together (chunked prefill).
CHUNK = 8192


@dataclass(frozen=True)
class TorchLoadedShape:
    """The `memory_model.LoadedShape` of a torch engine."""

    cpu_type: str
    """Default type on the CPU of weights that are not quantized.

    Torch's kernels for 16 bits are slow or missing on most CPUs; vLLM has its own kernels.
    """
    type_option: str
    """The engine's option for the type."""
    online: OnlineQuantization | None = None
    """The methods by which the engine packs weights while it loads them."""
    unpacked: frozenset[Scheme] = frozenset()
    """Schemes whose weights the engine unpacks to 16 bits."""

    def __call__(
        self, shape: ModelShape, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
    ) -> ModelShape:
        if shape.packing is not None or model_format != "pytorch":
            return self._packed(shape)
        if self.online is not None and (method := self.online.method(quantization, options)) is not None:
            return _with_packed_layers(shape, method.bits, bitsandbytes=method.scheme is Scheme.BITSANDBYTES)
        bits = BITSANDBYTES_BITS.get(quantization)
        if bits is not None:
            return _with_packed_layers(shape, bits)
        width = self._type_bytes(options) if on_cpu else None
        if width is None or width == shape.element_bytes == 2:
            return shape
        return msgspec.structs.replace(
            shape,
            weights_bytes=shape.weights_bytes * width // shape.element_bytes,
            linear_bytes=shape.linear_bytes * width // shape.element_bytes,
            linear_bits=width * 8,
            kv_bytes_per_token=shape.kv_bytes_per_token * width // 2,
            element_bytes=width,
        )

    def _packed(self, shape: ModelShape) -> ModelShape:
        """The shape of weights that are stored packed."""
        packing = shape.packing
        if packing is None:
            return shape
        if packing.scheme in self.unpacked:
            linear = int(shape.linear_bytes * 16 / packing.bits)
            weights = shape.weights_bytes - shape.linear_bytes + linear
            return msgspec.structs.replace(
                shape, weights_bytes=weights, linear_bytes=linear, linear_bits=16, element_bytes=2
            )
        return msgspec.structs.replace(shape, bitsandbytes=packing.scheme is Scheme.BITSANDBYTES)

    def _type_bytes(self, options: Mapping[str, Any]) -> int | None:
        name = str(options.get(self.type_option) or "auto").removeprefix("torch.")
        return TYPE_BYTES.get(self.cpu_type if name == "auto" else name)


def _with_packed_layers(shape: ModelShape, bits: float, *, bitsandbytes: bool = True) -> ModelShape:
    """The shape after an engine has packed the linear layers; all other weights are loaded with 16 bits."""
    others = (shape.weights_bytes - shape.linear_bytes) * 2 // shape.element_bytes if shape.linear_bytes else 0
    packed = int(shape.linear_bytes // shape.element_bytes * bits / 8)
    weights = others + packed if shape.linear_bytes else shape.weights_bytes
    return msgspec.structs.replace(
        shape, weights_bytes=weights, linear_bytes=0, element_bytes=2, bitsandbytes=bitsandbytes
    )


def served_cuda_overhead(dims: Dimensions) -> int:
    """Overhead of vLLM and SGLang on each device.

    CUDA's context and libraries take about 0.5 GiB, captured graphs 0.5 to 1 GiB. A chunk's activations take about 8
    rows of the model's width per token (projections up and down, residual, norm) with 16 bits; its logits take 32 bits
    for 256 tokens.
    """
    return int(1.5 * GIB) + CHUNK * 8 * 2 * dims.hidden + 256 * 4 * dims.vocab


def served_cpu_overhead(dims: Dimensions) -> int:
    """Overhead of vLLM on the CPU: server, engine and worker, each a Python process with torch.

    A page that the three processes share counts three times. Measured by `benchmarks/memory.py --engines`: the
    processes take 1700 MiB with a tiny model (560 + 540 + 590, and 12 for a tracker), and 30 MiB more with GPTQ or AWQ.
    oneDNN copies the linear layers into its own layout, and the process retains the memory of the small originals: 215
    MiB of 202 for 135M parameters; 305 of 588, of which 324 are small, for 6 layers of width 2048. Packed weights are
    unpacked and packed again, which retains about three times their size: 160 MiB (GPTQ) and 200 (AWQ) of 54, and 438
    (GPTQ) of 158. The whole cache is touched at the start.
    """
    retained = dims.retained_bytes * 3 + 30 * MIB if dims.packed else dims.retained_bytes
    return 1700 * MIB + retained + chunk_later(dims)


def chunk_later(dims: Dimensions) -> int:
    """The part of `served_cpu_overhead` that is allocated only by requests: a chunk's activations with 32 bits."""
    return min(dims.cells, CHUNK) * 4 * 4 * dims.hidden


def served_memory_model(*, online: OnlineQuantization, **own: Any) -> MemoryModel:
    """The memory model of vLLM and SGLang, with the fields in which the two differ."""
    return MemoryModel(
        default_slots=16,
        splits="tensors",
        cuda_overhead=served_cuda_overhead,
        cpu_overhead=served_cpu_overhead,
        cpu_later=chunk_later,
        loaded_shape=TorchLoadedShape(cpu_type="bfloat16", type_option="dtype", online=online),
        cell_padding=16,
        **own,
    )


def offloaded_bytes(options: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Host memory that these options, in GiB, let an engine use in place of a device's."""
    values = (options.get(name) for name in names)
    return sum(int(value * GIB) for value in values if isinstance(value, int | float))
