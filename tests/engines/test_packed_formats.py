"""Which engine runs packed weights on which machine, and the reason where none does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.engines.plans import AVX512, host_of, launch_of
from tests.support.cases import in_one_test
from xinference.catalog.models import ModelFamily, ModelFormat, ModelSpec, ModelVersion, Source
from xinference.catalog.packing import Packing, Scheme
from xinference.engines.registry import all_engines
from xinference.errors import Problem
from xinference.formats.packing import read_packing
from xinference.hardware.devices import Host
from xinference.launch.match import match
from xinference.launch.model_shape import ModelShape
from xinference.launch.request import LaunchRequest

CPU = host_of(flags=AVX512)
AVX2 = host_of(flags=frozenset({"avx2", "fma", "f16c"}))
AMX = host_of(flags=AVX512 | {"amx_tile", "avx512_bf16"})
TURING, AMPERE, ADA, HOPPER, BLACKWELL = (
    host_of(gpus=1, capability=each) for each in ((7, 5), (8, 0), (8, 9), (9, 0), (10, 0))
)
ENGINES = all_engines()


def spec(model_format: ModelFormat, *quantizations: str) -> ModelSpec:
    source = Source(hub="huggingface", model_id="me/some", file="some.gguf")
    return ModelSpec(
        model_format=model_format, model_size_in_billions=7, quantizations=quantizations, sources=(source,)
    )


def version(model_format: ModelFormat, quantization: str) -> ModelVersion:
    return ModelVersion(
        family=family(spec(model_format, quantization)),
        spec=spec(model_format, quantization),
        quantization=quantization,
    )


def family(*specs: ModelSpec) -> ModelFamily:
    return ModelFamily(
        model_name="some", context_length=4096, model_lang=(), model_ability=("chat",), model_specs=specs
    )


def packing_of(**given: Any) -> Packing:
    packing = read_packing({"quantization_config": given})
    assert packing is not None
    return packing


def group(bits: int, kind: str, inputs: dict[str, Any] | None = None, **weights: Any) -> Packing:
    fields = {"weights": {"num_bits": bits, "type": kind, **weights}, "input_activations": inputs}
    return packing_of(quant_method="compressed-tensors", config_groups={"group_0": fields})


W8A8 = group(8, "int", {"num_bits": 8, "type": "int"})
W4A16 = group(4, "int", group_size=128)
FP8 = packing_of(quant_method="fp8")
FP8_BLOCK = packing_of(quant_method="fp8", weight_block_size=[128, 128])
FP8_CHANNELS = group(8, "float", {"num_bits": 8, "type": "float", "strategy": "token"}, strategy="channel")
NVFP4 = packing_of(quant_method="modelopt", quant_algo="NVFP4")
MXFP4 = packing_of(quant_method="mxfp4")
MXFP4_LINEAR = group(4, "float", strategy="group", group_size=32)
BNB = packing_of(quant_method="bitsandbytes", load_in_4bit=True)
QUARK = packing_of(quant_method="quark")


@pytest.mark.parametrize("engine", ENGINES)
def test_mlx_is_refused_with_its_reason(engine: str) -> None:
    refusal = ENGINES[engine].table.supports(spec("mlx", "4bit"), "4bit")
    assert not refusal and "Apple's GPU framework" in str(refusal.reason)


@in_one_test(
    ("model_format", "quantization", "engines"),
    [
        ("fp8", "FP8", {"vLLM", "SGLang", "Transformers"}),
        ("fp8", "none", {"vLLM", "SGLang", "Transformers"}),
        ("fp4", "FP4", {"vLLM", "SGLang", "Transformers"}),
        ("bnb", "4-bit", {"SGLang", "Transformers"}),
        ("awq", "Int4", {"vLLM", "SGLang"}),
        ("awq", "4bit", {"vLLM", "SGLang"}),
        ("awq", "8bit", {"vLLM", "SGLang"}),
        ("awq", "AWQ-FP16Mix", {"vLLM", "SGLang"}),
        ("gptq", "8bits", {"vLLM", "SGLang"}),
        ("gptq", "Int4-Int8Mix", {"vLLM", "SGLang"}),
        ("gptq", "Int3", {"vLLM"}),
        ("pytorch", "4-bit", {"Transformers"}),
        ("pytorch", "fp8", {"vLLM", "SGLang"}),
        ("pytorch", "Int4", {"vLLM", "SGLang"}),
        ("pytorch", "Int8", {"vLLM", "SGLang"}),
        ("pytorch", "hqq", set()),
    ],
)
def test_a_packed_format_is_run_by(model_format: ModelFormat, quantization: str, engines: set[str]) -> None:
    packed = spec(model_format, quantization)
    assert {name for name, each in ENGINES.items() if each.table.supports(packed, quantization)} == engines


@in_one_test(
    ("engine", "packed", "host", "reason"),
    [
        ("vLLM", spec("fp8", "FP8"), TURING, None),
        ("SGLang", spec("fp8", "FP8"), TURING, "compute capability 8.0"),
        ("SGLang", spec("fp8", "FP8"), AMPERE, None),
        ("vLLM", spec("fp8", "FP8"), CPU, "8-bit floats in blocks need amx_tile"),
        ("vLLM", spec("fp8", "FP8"), AMX, None),
        ("SGLang", spec("fp8", "FP8"), AMX, "no CUDA device"),
        ("vLLM", spec("fp4", "NVFP4"), AMX, "no CPU kernels for NVFP4"),
        ("vLLM", spec("fp4", "NVFP4"), TURING, None),
        ("vLLM", spec("fp4", "MXFP4"), TURING, "MXFP4 need compute capability 8.0"),
        ("vLLM", spec("fp4", "MXFP4"), AMX, None),
        ("vLLM", spec("pytorch", "Int8"), AVX2, None),
        ("vLLM", spec("pytorch", "Int4"), AVX2, "need avx512f"),
        ("vLLM", spec("pytorch", "Int4"), CPU, None),
        ("vLLM", spec("pytorch", "none"), AVX2, None),
        ("Transformers", spec("fp8", "FP8"), AVX2, None),
        ("Transformers", spec("fp4", "NVFP4"), AVX2, "no CPU kernels for NVFP4"),
    ],
)
def test_the_name_of_a_format_is_enough_where_no_kernel_takes_any_of_its_schemes(
    engine: str, packed: ModelSpec, host: Host, reason: str | None
) -> None:
    support = ENGINES[engine].available(packed, host)
    assert bool(support) == (reason is None), support.reason
    assert reason is None or reason in str(support.reason)


@in_one_test(
    ("engine", "packing", "host", "reason"),
    [
        ("vLLM", W8A8, AVX2, None),
        ("vLLM", W8A8, TURING, None),
        ("SGLang", W8A8, TURING, "int8 W8A8 need compute capability 8.0"),
        ("vLLM", W4A16, AVX2, "need avx512f, avx512bw"),
        ("vLLM", W4A16, CPU, None),
        ("vLLM", group(8, "int", group_size=128), CPU, "no CPU kernels for int8 W8A16"),
        ("vLLM", group(4, "int", {"num_bits": 8, "type": "float"}), ADA, "compute capability 9.0"),
        ("vLLM", group(4, "int", {"num_bits": 8, "type": "float"}), HOPPER, None),
        ("vLLM", FP8_BLOCK, CPU, "amx_tile"),
        ("vLLM", FP8_BLOCK, AMX, None),
        ("vLLM", FP8, AMX, "no CPU kernels for 8-bit floats with one scale for each tensor"),
        ("vLLM", FP8_CHANNELS, AMX, "8-bit floats with a scale for each channel need amx_fp8"),
        ("vLLM", FP8_CHANNELS, TURING, None),
        ("SGLang", FP8_CHANNELS, AMPERE, None),
        ("vLLM", group(8, "float"), AMX, "no CPU kernels for 8-bit floats with activations of 16 bits"),
        ("vLLM", NVFP4, AMX, "no CPU kernels for NVFP4"),
        ("vLLM", MXFP4, AMX, None),
        ("vLLM", MXFP4_LINEAR, AMX, "in experts only"),
        ("vLLM", MXFP4_LINEAR, AMPERE, None),
        ("vLLM", BNB, AMPERE, "no kernels for weights packed as bitsandbytes"),
        ("SGLang", BNB, AMPERE, None),
        ("SGLang", packing_of(quant_method="modelopt", quant_algo="FP8"), AMPERE, "8.9"),
        ("SGLang", packing_of(quant_method="mxfp8"), HOPPER, "compute capability 10.0"),
        ("SGLang", packing_of(quant_method="mxfp8"), BLACKWELL, None),
        ("vLLM", QUARK, AMPERE, None),
        ("vLLM", QUARK, AMX, "no CUDA device"),
        ("vLLM", packing_of(quant_method="hqq"), AMPERE, "does not read weights that are packed by hqq"),
        ("Transformers", BNB, AVX2, None),
        ("Transformers", FP8, AVX2, None),
        ("Transformers", MXFP4, AVX2, None),
        ("Transformers", W8A8, AVX2, "no package for weights that are packed by compressed-tensors"),
        ("vLLM", Packing("unknown", Scheme.FP8, 8, "fp8", "F8_E4M3", stated=False), AMPERE, "config.json does not say"),
    ],
)
def test_the_configuration_of_the_weights_decides(
    engine: str, packing: Packing, host: Host, reason: str | None
) -> None:
    launch = launch_of(engine=engine, version=version(packing.model_format, packing.quantization))
    shape = ModelShape(1000, 1, 4096, 10, packing=packing)
    if reason is None:
        ENGINES[engine].check_packing(launch, shape, host)
        return
    with pytest.raises(Problem) as caught:
        ENGINES[engine].check_packing(launch, shape, host)
    assert caught.value.code == "engine_unsupported" and reason in caught.value.cause


@in_one_test(
    ("engine", "quantization", "options", "flag"),
    [
        ("vLLM", "fp8", {}, "fp8_per_tensor"),
        ("vLLM", "none", {"quantization": "fp8"}, "fp8_per_tensor"),
        ("vLLM", "none", {"quantization": "fp8_per_block"}, "fp8_per_block"),
        ("SGLang", "fp8", {}, "fp8"),
        ("SGLang", "none", {"quantization": "bitsandbytes"}, "bitsandbytes"),
        ("vLLM", "none", {}, None),
    ],
)
def test_weights_are_packed_at_the_start_by_the_engines_own_flag(
    engine: str, quantization: str, options: Mapping[str, Any], flag: str | None
) -> None:
    request = LaunchRequest(model_name="some")
    completed, reasons = ENGINES[engine].complete_options(version("pytorch", quantization), request, options)
    assert completed.get("quantization") == flag
    assert bool(reasons) == (flag is not None)


@pytest.mark.parametrize(
    ("engine", "name", "said"),
    [
        ("vLLM", "bitsandbytes", "no longer has bitsandbytes"),
        ("vLLM", "fp88", "Did you mean fp8"),
        ("SGLang", "nothing", "It packs weights by fp8"),
    ],
)
def test_a_method_that_the_engine_does_not_have_is_refused(engine: str, name: str, said: str) -> None:
    with pytest.raises(Problem) as caught:
        request = LaunchRequest(model_name="some")
        ENGINES[engine].complete_options(version("pytorch", "none"), request, {"quantization": name})
    assert caught.value.code == "bad_option" and said in f"{caught.value.cause} {caught.value.hint}"


def test_packing_at_the_start_needs_the_same_kernels_and_weights_as_trained() -> None:
    launch = launch_of(version=version("pytorch", "fp8"))
    whole = ModelShape(1000, 1, 4096, 10)
    ENGINES["vLLM"].check_packing(launch, whole, TURING)
    for host in (CPU, AMX):  # its kernel for CPUs that packs is missing
        with pytest.raises(Problem, match="packs weights on GPUs only"):
            ENGINES["vLLM"].check_packing(launch, whole, host)
    mxfp4 = launch_of(version=version("pytorch", "none"), options={"quantization": "mxfp4"})
    with pytest.raises(Problem, match=r"compute capability 8\.0"):
        ENGINES["vLLM"].check_packing(mxfp4, whole, TURING)
    with pytest.raises(Problem, match="packed already"):
        ENGINES["vLLM"].check_packing(launch, ModelShape(1000, 1, 4096, 10, packing=W8A8), CPU)


def test_fp8_of_a_launch_is_a_published_version_if_there_is_one_and_else_made_at_the_start() -> None:
    published = {"some": family(spec("pytorch", "none"), spec("fp8", "FP8"))}
    request = LaunchRequest(model_name="some", quantization="fp8")
    assert match(published, request).spec.model_format == "fp8"
    alone = match({"some": family(spec("pytorch", "none"))}, request)
    assert (alone.spec.model_format, alone.quantization) == ("pytorch", "fp8")
    named = match(published, LaunchRequest(model_name="some", quantization="fp8", model_format="pytorch"))
    assert named.spec == alone.spec
    with pytest.raises(Problem, match="no quantization fp8"):
        match({"some": family(spec("ggufv2", "Q4_K_M"))}, request)


@pytest.mark.parametrize(
    ("engine", "options", "expected"),
    [("vLLM", {}, 1400), ("SGLang", {}, 1400), ("vLLM", {"quantization": "mxfp4"}, 400 + int(1000 * 4.25 / 8))],
)
def test_weights_that_are_packed_at_the_start_are_planned_packed(
    engine: str, options: Mapping[str, Any], expected: int
) -> None:
    stored = ModelShape(2400, 80, 512, 10, linear_bytes=2000, hidden=4)
    loaded = ENGINES[engine].memory.loaded_shape(stored, "pytorch", "fp8", options, on_cpu=False)
    assert loaded.weights_bytes == expected


def test_transformers_unpacks_floats_to_16_bits() -> None:
    stored = ModelShape(1400, 80, 512, 10, linear_bytes=1000, packing=FP8_BLOCK)
    for on_cpu in (True, False):
        loaded = ENGINES["Transformers"].memory.loaded_shape(stored, "fp8", "FP8", {}, on_cpu=on_cpu)
        assert loaded.weights_bytes == 2400
    packed = ENGINES["vLLM"].memory.loaded_shape(stored, "fp8", "FP8", {}, on_cpu=False)
    assert packed.weights_bytes == 1400
