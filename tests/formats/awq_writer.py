"""AWQ checkpoints as AutoAWQ writes them (version ``gemm``), made by plain rounding, without its search for scales.

Format, from AutoAWQ's ``WQLinear_GEMM.from_linear`` (https://github.com/casper-hansen/AutoAWQ): for a layer of K
inputs and N outputs, ``qweight`` [K, N / 8] and ``qzeros`` [K / group, N / 8] pack eight neighbours along the outputs,
interleaved so that its kernel unpacks pairs; ``scales`` [K / group, N] are halves.
"""

from __future__ import annotations

from pathlib import Path

from tests.formats.int4_folder import (
    GROUP_SIZE,
    Groups,
    Tensor,
    float16,
    int32,
    pack,
    quantize,
    unpack,
    values_of,
    words,
    write_folder,
)

BITS = 4
#: Which of eight neighbours lies in which four bits, the lowest first.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def write_awq(source: Path, out: Path, group_size: int = GROUP_SIZE) -> None:
    """Write the Hugging Face folder `source` with its projections in AWQ's 4 bits."""
    config = {"quant_method": "awq", "bits": BITS, "group_size": group_size, "zero_point": True, "version": "gemm"}

    def packed(layer: str, weight: Tensor) -> dict[str, Tensor]:
        outputs, inputs = weight.shape
        groups = quantize(values_of(weight), outputs, inputs, bits=BITS, symmetric=False, group_size=group_size)
        return {f"{layer}.{name}": tensor for name, tensor in pack_awq(groups).items()}

    write_folder(source, out, config, packed)


def pack_awq(groups: Groups) -> dict[str, Tensor]:
    """The three tensors of one layer."""
    return {
        "qweight": int32([pack(row, BITS, ORDER) for row in groups.integers]),
        "qzeros": int32([pack(row, BITS, ORDER) for row in groups.zeros]),
        "scales": float16(groups.scales),
    }


def unpack_awq(tensors: dict[str, Tensor]) -> list[list[float]]:
    """The weights again, a row an input."""
    integers = [unpack(row, BITS, ORDER) for row in words(tensors["qweight"])]
    zeros = [unpack(row, BITS, ORDER) for row in words(tensors["qzeros"])]
    outputs, group_size = len(zeros[0]), len(integers) // len(zeros)
    scales = values_of(tensors["scales"])
    return [
        [scales[i // group_size * outputs + o] * (row[o] - zeros[i // group_size][o]) for o in range(outputs)]
        for i, row in enumerate(integers)
    ]
