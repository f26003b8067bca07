"""GPTQ checkpoints as AutoGPTQ writes them (its v1 format), made by plain rounding.

Format, from AutoGPTQ's ``QuantLinear.pack`` (https://github.com/AutoGPTQ/AutoGPTQ): for a layer of K inputs and N
outputs, ``qweight`` [K * bits / 32, N] packs neighbours along the inputs, ``qzeros`` [K / group, N * bits / 32] packs
the zeros less one along the outputs, ``scales`` [K / group, N] are halves, and ``g_idx`` [K] names each input's group.
"""

from __future__ import annotations

import struct
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


def write_gptq(source: Path, out: Path, bits: int = 4, group_size: int = GROUP_SIZE) -> None:
    """Write the Hugging Face folder `source` with its projections in GPTQ's `bits` bits (4 or 8)."""
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "damp_percent": 0.1,
        "desc_act": False,
        "static_groups": False,
        "sym": True,
        "true_sequential": True,
    }

    def packed(layer: str, weight: Tensor) -> dict[str, Tensor]:
        outputs, inputs = weight.shape
        groups = quantize(values_of(weight), outputs, inputs, bits=bits, symmetric=True, group_size=group_size)
        return {f"{layer}.{name}": tensor for name, tensor in pack_gptq(groups, bits).items()}

    write_folder(source, out, config, packed)


def pack_gptq(groups: Groups, bits: int) -> dict[str, Tensor]:
    """The four tensors of one layer."""
    columns = [pack([row[output] for row in groups.integers], bits) for output in range(groups.outputs)]
    g_idx = [input_ // groups.group_size for input_ in range(groups.inputs)]
    return {
        "qweight": int32([list(row) for row in zip(*columns, strict=True)]),
        "qzeros": int32([pack([zero - 1 for zero in row], bits) for row in groups.zeros]),
        "scales": float16(groups.scales),
        "g_idx": Tensor("I32", (groups.inputs,), struct.pack(f"<{groups.inputs}i", *g_idx)),
    }


def unpack_gptq(tensors: dict[str, Tensor], bits: int) -> list[list[float]]:
    """The weights again, a row an input."""
    columns = [unpack(list(column), bits) for column in zip(*words(tensors["qweight"]), strict=True)]
    zeros = [[zero + 1 for zero in unpack(row, bits)] for row in words(tensors["qzeros"])]
    outputs = len(columns)
    scales = values_of(tensors["scales"])
    g_idx = struct.unpack(f"<{len(columns[0])}i", tensors["g_idx"].data)
    return [
        [scales[group * outputs + o] * (columns[o][input_] - zeros[group][o]) for o in range(outputs)]
        for input_, group in enumerate(g_idx)
    ]
