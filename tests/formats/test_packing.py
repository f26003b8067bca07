"""How weights are packed is read from their configuration, in every form in which makers write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.catalog.packing import Packing, Scheme
from xinference.formats.model_config import read_config
from xinference.formats.packing import packing_of_types, read_packing


def group(weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    fields = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": fields}, "format": "pack-quantized"}


INT8: dict[str, Any] = {"num_bits": 8, "type": "int"}
FLOAT8: dict[str, Any] = {"num_bits": 8, "type": "float"}
FLOAT4: dict[str, Any] = {"num_bits": 4, "type": "float"}


@in_one_test(
    ("given", "scheme", "launched", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, Scheme.GPTQ, ("gptq", "Int4"), 4.125),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, Scheme.GPTQ, ("gptq", "Int8"), 8),
        ({"quant_method": "awq", "bits": 4}, Scheme.AWQ, ("awq", "Int4"), 4.125),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, Scheme.AWQ, ("awq", "Int4"), 4.25),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Scheme.FP8_BLOCK, ("fp8", "FP8"), 8),
        ({"quant_method": "fp8", "activation_scheme": "static"}, Scheme.FP8, ("fp8", "FP8"), 8),
        ({"quant_method": "fbgemm_fp8"}, Scheme.FP8_CHANNELS, ("fp8", "FP8"), 8),
        ({"quant_method": "mxfp4"}, Scheme.MXFP4, ("fp4", "MXFP4"), 4.25),
        ({"quant_method": "mxfp8"}, Scheme.MXFP8, ("fp8", "FP8"), 8.25),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, Scheme.BITSANDBYTES, ("bnb", "4-bit"), 4.5),
        ({"load_in_8bit": True}, Scheme.BITSANDBYTES, ("bnb", "8-bit"), 8),
        (group(INT8, INT8), Scheme.INT8, ("pytorch", "Int8"), 8),
        (group({**INT8, "num_bits": 4, "group_size": 128}), Scheme.W4A16, ("pytorch", "Int4"), 4.125),
        (group(INT8), Scheme.W8A16, ("pytorch", "Int8"), 8),
        (group({**INT8, "num_bits": 4}, INT8), Scheme.W4A8, ("pytorch", "Int4"), 4),
        (group({**INT8, "num_bits": 4}, FLOAT8), Scheme.W4AFP8, ("pytorch", "Int4"), 4),
        (group({**FLOAT8, "strategy": "channel"}, FLOAT8), Scheme.FP8_CHANNELS, ("fp8", "FP8"), 8),
        (
            group({**FLOAT8, "strategy": "tensor"}, {**FLOAT8, "strategy": "token"}),
            Scheme.FP8_CHANNELS,
            ("fp8", "FP8"),
            8,
        ),
        (group({**FLOAT8, "strategy": "tensor"}, {**FLOAT8, "strategy": "tensor"}), Scheme.FP8, ("fp8", "FP8"), 8),
        (group({**FLOAT8, "strategy": "block"}, FLOAT8), Scheme.FP8_BLOCK, ("fp8", "FP8"), 8),
        (group(FLOAT8), Scheme.FP8_WEIGHTS, ("fp8", "FP8"), 8),
        (group({**FLOAT8, "strategy": "group", "group_size": 32}, FLOAT8), Scheme.MXFP8, ("fp8", "FP8"), 8.25),
        (group({**FLOAT4, "strategy": "tensor_group", "group_size": 16}), Scheme.NVFP4, ("fp4", "NVFP4"), 4.5),
        (group({**FLOAT4, "strategy": "group", "group_size": 32}), Scheme.MXFP4, ("fp4", "MXFP4"), 4.25),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, Scheme.NVFP4, ("fp4", "NVFP4"), 4.5),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, Scheme.FP8, ("fp8", "FP8"), 8),
        (
            {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
            Scheme.FP8_CHANNELS,
            ("fp8", "FP8"),
            8,
        ),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}, Scheme.FP8_BLOCK, ("fp8", "FP8"), 8),
        ({"quant_method": "quark"}, Scheme.OTHER, ("pytorch", "quark"), 16),
        ({"quant_method": "compressed-tensors", "config_groups": []}, Scheme.OTHER, None, 16),
    ],
)
def test_a_configuration_is_read_with_its_scheme(
    given: dict[str, Any], scheme: Scheme, launched: tuple[str, str] | None, bits: float
) -> None:
    packing = read_packing({"quantization_config": given})
    assert packing is not None and packing.scheme is scheme
    assert packing.bits == pytest.approx(bits, abs=1e-3)
    assert launched is None or (packing.model_format, packing.quantization) == launched


def test_the_configuration_of_a_text_model_and_the_older_name_are_found() -> None:
    given = {"quant_method": "fp8"}
    assert read_packing({"text_config": {"quantization_config": given}}) == read_packing({"compression_config": given})
    assert read_packing({}) is None
    assert read_packing({"quantization_config": {}}) is None


def test_modelopts_own_file_counts_where_config_json_says_nothing() -> None:
    own = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}
    assert read_packing({}, own) == Packing("modelopt", Scheme.NVFP4, 4.5, "fp4", "NVFP4")
    config = read_config(json.dumps({"model_type": "llama"}).encode(), Path("config.json"), own)
    assert (config.model_format, config.quantization) == ("fp4", "NVFP4")
    assert read_packing({}, {"quantization": {"quant_algo": None}}) is None


def test_mlx_is_known_by_its_two_equal_objects() -> None:
    given = {"group_size": 64, "bits": 4}
    packing = read_packing({"quantization": given, "quantization_config": given})
    assert packing is not None and (packing.model_format, packing.quantization, packing.bits) == ("mlx", "4bit", 4.5)


@in_one_test("value", ["x", -1, 10**9, None, True, [], {}])
@in_one_test("field", ["bits", "group_size", "num_bits", "weight_block_size", "config_groups", "w_bit"])
@in_one_test("method", ["gptq", "awq", "fp8", "compressed-tensors", "modelopt", "bitsandbytes", 7, None])
def test_hostile_values_are_no_error(method: Any, field: str, value: Any) -> None:
    assert read_packing({"quantization_config": {"quant_method": method, field: value}}) is not None
    nested = group({**INT8, field: value}) if method == "compressed-tensors" else {"quant_algo": value}
    assert read_packing({"quantization_config": nested}, {"quantization": value}) is not None


def test_types_alone_show_packed_weights_that_nothing_describes() -> None:
    shown = packing_of_types({"F8_E4M3": 900, "BF16": 100})
    assert shown is not None and shown.scheme is Scheme.FP8 and not shown.stated
    assert packing_of_types({"BF16": 900, "F8_E4M3": 100}) is None
    assert packing_of_types({}) is None
