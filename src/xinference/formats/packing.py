"""Reads how the weights of a folder are packed. Pure.

The sources are ``quantization_config`` in config.json, ModelOpt's hf_quant_config.json, and the types of the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.catalog.packing import Packing, Scheme

#: The file in which ModelOpt describes the packing of older weights.
QUANT_CONFIG_FILE = "hf_quant_config.json"


def read_packing(config: Mapping[str, Any], quant_config: Mapping[str, Any] | None = None) -> Packing | None:
    """The packing that config.json states, or else hf_quant_config.json; None: the weights are not packed."""
    inner = config.get("text_config")
    for fields in (config, inner if isinstance(inner, dict) else {}):
        for name in ("quantization_config", "compression_config"):
            if isinstance(fields.get(name), dict) and fields[name]:
                return _by_method(fields[name], fields)
    modelopt = (quant_config or {}).get("quantization")
    return _modelopt(modelopt) if isinstance(modelopt, dict) and modelopt.get("quant_algo") else None


def packing_of_types(types: Mapping[str, int]) -> Packing | None:
    """The packing that the types of the tensors show, if most bytes have such a type; None: they have 16 or 32 bits.

    Args:
        types: safetensors' name of a type -> bytes.
    """
    kind = max(types, key=lambda name: types[name], default="")
    if kind.startswith(("F8_E4M3", "F8_E5M2")):
        return Packing("unknown", Scheme.FP8, 8, "fp8", "FP8", stated=False)
    if kind in ("F4", "U8", "I8", "I32"):
        return Packing(f"types {kind}", Scheme.OTHER, 4 if kind == "F4" else 8, "pytorch", kind, stated=False)
    return None


def _by_method(given: Mapping[str, Any], config: Mapping[str, Any]) -> Packing:
    method = str(given.get("quant_method") or "unknown").lower()
    reader = _READERS.get(method)
    if reader is not None:
        return reader(given)
    if "load_in_4bit" in given or "load_in_8bit" in given:
        return _bitsandbytes(given)
    if method == "unknown" and "quant_algo" in given:
        return _modelopt(given)
    if method == "unknown" and isinstance(config.get("quantization"), dict) and "bits" in given:
        bits = _bits(given)
        return Packing("mlx", Scheme.MLX, bits + 32 / _group(given, 64), "mlx", f"{bits}bit")
    return _other(method)


def _other(method: str) -> Packing:
    return Packing(method, Scheme.OTHER, 16, "pytorch", method)


def _gptq(given: Mapping[str, Any]) -> Packing:
    return Packing("gptq", Scheme.GPTQ, _grouped(_bits(given), _group(given)), "gptq", f"Int{_bits(given)}")


def _awq(given: Mapping[str, Any]) -> Packing:
    bits = _count(given, ("bits", "w_bit"), 4)
    return Packing("awq", Scheme.AWQ, _grouped(bits, _group(given)), "awq", f"Int{bits}")


def _bitsandbytes(given: Mapping[str, Any]) -> Packing:
    # A block of 64 weights of 4 bits has a scale of 32 bits, or of about 8 if the scales are packed, too.
    four = bool(given.get("load_in_4bit"))
    scale = 8.5 if given.get("bnb_4bit_use_double_quant") else 32
    return Packing(
        "bitsandbytes", Scheme.BITSANDBYTES, 4 + scale / 64 if four else 8, "bnb", "4-bit" if four else "8-bit"
    )


def _fp8(given: Mapping[str, Any]) -> Packing:
    block = given.get("weight_block_size")
    if isinstance(block, list) and len(block) == 2:
        return _floats("fp8", Scheme.FP8_BLOCK)
    return _floats("fp8", Scheme.FP8)


def _floats(method: str, scheme: Scheme) -> Packing:
    bits = {Scheme.MXFP8: 8.25, Scheme.NVFP4: 4.5, Scheme.MXFP4: 4.25}.get(scheme, 8.0)
    if scheme in (Scheme.NVFP4, Scheme.MXFP4):
        return Packing(method, scheme, bits, "fp4", scheme.name)
    return Packing(method, scheme, bits, "fp8", "FP8")


def _modelopt(given: Mapping[str, Any]) -> Packing:
    algorithm = str(given.get("quant_algo") or "").upper()
    if "NVFP4" in algorithm:
        return _floats("modelopt", Scheme.NVFP4)
    if "MXFP8" in algorithm:
        return _floats("modelopt", Scheme.MXFP8)
    if algorithm.startswith("FP8"):
        block = "PB" in algorithm.split("_") or "BLOCK" in algorithm
        if block:
            return _floats("modelopt", Scheme.FP8_BLOCK)
        return _floats("modelopt", Scheme.FP8_CHANNELS if "PER_CHANNEL" in algorithm else Scheme.FP8)
    if algorithm == "W4A16_AWQ":
        return Packing("modelopt", Scheme.OTHER, 4.25, "pytorch", "modelopt W4A16_AWQ")
    return _other(f"modelopt {algorithm or 'of an unknown kind'}")


def _compressed(given: Mapping[str, Any]) -> Packing:
    """By the widest group: a group for the attention's cache has no weights."""
    groups = given.get("config_groups")
    found = [
        packing
        for group in (groups.values() if isinstance(groups, dict) else ())
        if isinstance(group, dict) and isinstance(group.get("weights"), dict)
        for packing in [_compressed_group(group)]
    ]
    return max(found, key=lambda packing: packing.bits, default=_other("compressed-tensors without groups"))


def _compressed_group(group: Mapping[str, Any]) -> Packing:
    method = "compressed-tensors"
    weights, inputs = group["weights"], group.get("input_activations")
    inputs = inputs if isinstance(inputs, dict) else None
    bits, size, floats = _count(weights, ("num_bits",), 8), _group(weights, 0), weights.get("type") == "float"
    if floats and bits == 4:
        return _floats(method, Scheme.NVFP4 if weights.get("strategy") == "tensor_group" else Scheme.MXFP4)
    if floats:
        if size == 32 and weights.get("strategy") == "group":
            return _floats(method, Scheme.MXFP8)
        if weights.get("strategy") == "block":
            return _floats(method, Scheme.FP8_BLOCK)
        if inputs is None:
            return _floats(method, Scheme.FP8_WEIGHTS)
        one_scale = {weights.get("strategy"), inputs.get("strategy")} == {"tensor"}
        return _floats(method, Scheme.FP8 if one_scale else Scheme.FP8_CHANNELS)
    scheme = _INTEGERS.get((bits, _kind_of(inputs)))
    if scheme is None:
        return _other(f"{method} with {bits}-bit integers")
    return Packing(method, scheme, _grouped(bits, size) if size else bits, "pytorch", f"Int{bits}")


def _kind_of(inputs: Mapping[str, Any] | None) -> str | None:
    """The kind of the activations: None, ``int8`` or ``float8``."""
    return None if inputs is None else f"{inputs.get('type') or 'int'}{inputs.get('num_bits') or 8}"


def _bits(given: Mapping[str, Any]) -> int:
    return _count(given, ("bits",), 4)


def _count(given: Mapping[str, Any], names: tuple[str, ...], default: int) -> int:
    """The first field that is a number of bits."""
    values = (given.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 < v <= 16), default)


def _group(given: Mapping[str, Any], default: int = 128) -> int:
    """Weights that share a scale; a whole row counts as very many."""
    value = given.get("group_size", given.get("q_group_size"))
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value > 0 else 1 << 20
    return default


def _grouped(bits: float, group: int) -> float:
    return bits + 16 / group


_INTEGERS: Mapping[tuple[int, str | None], Scheme] = {
    (8, "int8"): Scheme.INT8,
    (4, None): Scheme.W4A16,
    (8, None): Scheme.W8A16,
    (4, "int8"): Scheme.W4A8,
    (4, "float8"): Scheme.W4AFP8,
}
_READERS = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "fbgemm_fp8": lambda given: _floats("fbgemm_fp8", Scheme.FP8_CHANNELS),
    "mxfp4": lambda given: _floats("mxfp4", Scheme.MXFP4),
    "mxfp8": lambda given: _floats("mxfp8", Scheme.MXFP8),
    "modelopt": _modelopt,
    "modelopt_fp4": lambda given: _floats("modelopt", Scheme.NVFP4),
    "compressed-tensors": _compressed,
    "compressed_tensors": _compressed,
}
