"""Which engine runs packed weights on which machine, and the reason where none does."""

from __future__ import annotations

import pytest

from tests.engines.plans import AVX512, host_of
from xinference.catalog.models import ModelFormat, ModelSpec, Source
from xinference.engines.registry import all_engines
from xinference.hardware.devices import Host

CPU = host_of(flags=AVX512)


def spec(model_format: ModelFormat, quantization: str) -> ModelSpec:
    source = Source(hub="huggingface", model_id="me/some", file="some.gguf")
    return ModelSpec(
        model_format=model_format, model_size_in_billions=7, quantizations=(quantization,), sources=(source,)
    )


@pytest.mark.parametrize("engine", all_engines())
@pytest.mark.parametrize(
    ("model_format", "quantization", "reason"),
    [("mlx", "4bit", "Apple's GPU framework"), ("fp4", "FP4", "4-bit floats")],
)
def test_a_format_that_no_engine_runs_is_refused_with_its_reason(
    engine: str, model_format: ModelFormat, quantization: str, reason: str
) -> None:
    refusal = all_engines()[engine].table.supports(spec(model_format, quantization), quantization)
    assert not refusal and reason in str(refusal.reason)


@pytest.mark.parametrize(
    ("model_format", "quantization", "engines"),
    [
        ("fp8", "FP8", {"vLLM", "SGLang"}),
        ("fp8", "none", {"vLLM", "SGLang"}),
        ("bnb", "4-bit", {"Transformers"}),
        ("awq", "Int4", {"vLLM", "SGLang"}),
        ("awq", "4bit", {"vLLM", "SGLang"}),
        ("gptq", "8bits", {"vLLM"}),
        ("pytorch", "4-bit", {"Transformers"}),
        ("pytorch", "Int4", set()),
    ],
)
def test_a_packed_format_is_run_by(model_format: ModelFormat, quantization: str, engines: set[str]) -> None:
    packed = spec(model_format, quantization)
    assert {name for name, each in all_engines().items() if each.table.supports(packed, quantization)} == engines


@pytest.mark.parametrize("engine", ["vLLM", "SGLang"])
@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (host_of(gpus=1, capability=(7, 5)), "compute capability 8.0"),
        (host_of(gpus=1, capability=(8, 0)), None),
        (host_of(gpus=1, capability=(8, 9)), None),
        (CPU, "no CUDA device"),
    ],
    ids=["Turing", "Ampere", "Ada", "CPU"],
)
def test_8_bit_floats_need_a_gpu_with_kernels_for_them(engine: str, host: Host, reason: str | None) -> None:
    support = all_engines()[engine].available(spec("fp8", "FP8"), host)
    assert bool(support) == (reason is None)
    assert reason is None or reason in str(support.reason)
