"""The GPTQ and AWQ packers: what is unpacked is what was packed, within the quantization's step."""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path

import pytest

from tests.formats.awq_writer import pack_awq, unpack_awq, write_awq
from tests.formats.gptq_writer import pack_gptq, unpack_gptq, write_gptq
from tests.formats.int4_folder import Groups, Tensor, pack, quantize, read_tensors, unpack, values_of

ASSETS = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
LAYER = "model.layers.1.mlp.down_proj"
OUTPUTS, INPUTS, GROUP = 16, 64, 32


def some_weights() -> array[float]:
    dice = random.Random(7)
    return array("f", (dice.gauss(0.0, 0.1) for _ in range(OUTPUTS * INPUTS)))


def within_a_step(weights: array[float], unpacked: list[list[float]], groups: Groups) -> bool:
    # Both ends of a symmetric range may be cut by half a step, and a zero may be off by half a step: one in all.
    return all(
        abs(weights[o * INPUTS + i] - unpacked[i][o]) <= 1.01 * groups.scales[i // GROUP][o]
        for i in range(INPUTS)
        for o in range(OUTPUTS)
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_gives_the_weights_back_within_a_step(bits: int) -> None:
    weights = some_weights()
    groups = quantize(weights, OUTPUTS, INPUTS, bits=bits, symmetric=True, group_size=GROUP)
    assert within_a_step(weights, unpack_gptq(pack_gptq(groups, bits), bits), groups)


def test_awq_gives_the_weights_back_within_a_step() -> None:
    weights = some_weights()
    groups = quantize(weights, OUTPUTS, INPUTS, bits=4, symmetric=False, group_size=GROUP)
    assert within_a_step(weights, unpack_awq(pack_awq(groups)), groups)


def test_gptq_puts_the_first_input_into_the_lowest_bits() -> None:
    assert pack([1, 2, 3, 4, 5, 6, 7, 8], 4) == [0x87654321]


def test_awq_interleaves_even_and_odd_outputs() -> None:
    assert pack([0, 1, 2, 3, 4, 5, 6, 7], 4, (0, 2, 4, 6, 1, 3, 5, 7)) == [0x75316420]
    assert unpack([0x75316420], 4, (0, 2, 4, 6, 1, 3, 5, 7)) == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.thorough
def test_a_gptq_folder_has_the_public_shapes_and_says_so(tmp_path: Path) -> None:
    write_gptq(ASSETS, tmp_path / "gptq")
    tensors = read_tensors(tmp_path / "gptq" / "model.safetensors")
    assert shapes(tensors) == {"qweight": (96, 256), "qzeros": (6, 32), "scales": (6, 256), "g_idx": (768,)}
    settings = json.loads((tmp_path / "gptq" / "config.json").read_text())["quantization_config"]
    assert (settings["quant_method"], settings["bits"], settings["sym"]) == ("gptq", 4, True)
    assert_the_rest_is_as_before(tensors)


@pytest.mark.thorough
def test_an_awq_folder_has_the_public_shapes_and_says_so(tmp_path: Path) -> None:
    write_awq(ASSETS, tmp_path / "awq")
    tensors = read_tensors(tmp_path / "awq" / "model.safetensors")
    assert shapes(tensors) == {"qweight": (768, 32), "qzeros": (6, 32), "scales": (6, 256)}
    settings = json.loads((tmp_path / "awq" / "config.json").read_text())["quantization_config"]
    assert (settings["quant_method"], settings["version"], settings["zero_point"]) == ("awq", "gemm", True)
    assert_the_rest_is_as_before(tensors)


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {n.removeprefix(f"{LAYER}."): t.shape for n, t in tensors.items() if n.startswith(LAYER)}


def assert_the_rest_is_as_before(tensors: dict[str, Tensor]) -> None:
    before = read_tensors(ASSETS / "model.safetensors")
    assert tensors["lm_head.weight"] == before["lm_head.weight"]
    assert values_of(tensors["model.norm.weight"]) == values_of(before["model.norm.weight"])
