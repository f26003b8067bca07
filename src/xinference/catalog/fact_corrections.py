"""Corrections of errors in the fact files, with the reason for each. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xinference.catalog.fact_files import HubFacts, SpecFacts

#: Parameters of models whose size in the facts is that of the active ones, by a family's name in lower case.
PARAMETERS = {"moonlight-16b-a3b-instruct": 15_960_108_544}
#: Families whose weights as trained are 8-bit floats, by the beginning of a name in lower case, from this size on.
TRAINED_IN_8_BITS = ("deepseek-v3", "deepseek-r1", "deepseek-prover-v2", "minimax-m2")
_SMALLEST_IN_8_BITS = 200
_PACKED = "the weights in the repository are quantized by bitsandbytes"
_BITSANDBYTES_4 = ("openbmb/MiniCPM-V-2_6-int4", "openbmb/MiniCPM-V-4_5-int4", "OpenBMB/MiniCPM-V-4_5-int4")


@dataclass(frozen=True)
class Entry:
    """One (format, size, quantization) on one hub."""

    model_format: str
    size: int | str
    quantization: str
    model_id: str
    """Its placeholder is filled in."""
    file: str | None
    reason: str | None = None
    """The reason for a correction; None: it is as in the facts."""


def trained_in_8_bits(family: str, billions: float) -> bool:
    """Whether the weights that are listed as unpacked are 8-bit floats: the models distilled from them are not."""
    return family.lower().startswith(TRAINED_IN_8_BITS) and billions >= _SMALLEST_IN_8_BITS


UNLISTED = "the facts list the parts of each quantization, and only `none` as the quantizations"


def quantizations_of(spec: SpecFacts, hub: HubFacts) -> tuple[str, ...]:
    """The quantizations on a hub; those with parts, if the facts list no other."""
    unlisted = spec.format == "ggufv2" and hub.quantizations == ("none",) and hub.file is None
    return tuple(hub.parts) if unlisted else hub.quantizations


def corrected(family: str, spec: SpecFacts, hub: HubFacts, quantization: str) -> Entry:
    """The entry of the facts, corrected where that is known to be wrong."""
    model_id = hub.id.replace("{quantization}", quantization)
    entry = Entry(spec.format, spec.size_in_billions, quantization, model_id, hub.file)
    if quantization not in hub.quantizations:
        return replace(entry, reason=UNLISTED)
    if spec.format == "pytorch":
        return _with_true_format(entry)
    if model_id.startswith("mlx-community/Qwen/"):
        known = model_id.replace("mlx-community/Qwen/", "mlx-community/")
        return replace(entry, model_id=known, reason="an id has two parts, the owner and the name")
    if (family, spec.format) == ("deepseek-r1-distill-llama", "ggufv2"):
        return _distilled(entry)
    return entry


def _with_true_format(entry: Entry) -> Entry:
    lowered = entry.model_id.lower()
    if lowered.endswith("bnb-4bit") or entry.model_id in _BITSANDBYTES_4:
        return replace(entry, model_format="bnb", quantization="4-bit", reason=_PACKED)
    if lowered.endswith("bnb-8bit"):
        return replace(entry, model_format="bnb", quantization="8-bit", reason=_PACKED)
    if entry.quantization == "fp8":
        return replace(entry, model_format="fp8", reason="the weights are 8-bit floats, which is the format fp8")
    return entry


def _distilled(entry: Entry) -> Entry:
    if "Qwen-7B" in (entry.file or "") and "Llama-70B" in entry.model_id:
        file = "DeepSeek-R1-Distill-Llama-70B-{quantization}.gguf"
        return replace(
            entry, file=file, reason="the facts name another model's file; the registry has the one of the repository"
        )
    if entry.size == "1_5" and "Llama-8B" in entry.model_id:
        return replace(entry, size=8, reason="the repository has the model with 8 billion parameters")
    return entry
