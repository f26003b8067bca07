"""Launch plans and hosts for the tests of the adapters: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelFamily, ModelFormat, ModelSpec, ModelType, ModelVersion, Source
from xinference.catalog.registry import builtin_families
from xinference.hardware.devices import Driver, Gpu, Host
from xinference.launch.match import match
from xinference.launch.place import local_places
from xinference.launch.plan import Devices, LaunchDraft, ResolvedLaunch, SizedPlan, Sizing
from xinference.launch.request import LaunchRequest

GIB = 1024**3
AVX2 = frozenset({"avx2", "fma", "f16c"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


def launch_of(
    family: str = "llama-2-chat",
    *,
    uid: str = "mine",
    engine: str = "vLLM",
    version: ModelVersion | None = None,
    request: LaunchRequest | None = None,
    origin: Source | Path = Path("/weights/here"),
    options: Mapping[str, Any] | None = None,
    threads: int = 2,
    use_gpu: bool = False,
) -> ResolvedLaunch:
    """A launch of a built-in family that is not sized."""
    request = request or LaunchRequest(model_name=family)
    version = version or match(builtin_families(), request)
    return ResolvedLaunch(LaunchDraft(uid, request, version, engine, use_gpu, threads), origin, options or {})


def sized(launch: ResolvedLaunch, *, path: Path | None = None, devices: Devices = (), **sizing: Any) -> SizedPlan:
    """The plan of a launch, with these numbers in its sizing."""
    numbers = {"context_length": 4095, "slots": 4, "weights_bytes": 1, "kv_cache_bytes": 4 * GIB, "overhead_bytes": 1}
    path = path or (launch.origin if isinstance(launch.origin, Path) else Path("/weights/here"))
    return SizedPlan(launch, path, Sizing(**numbers | sizing), local_places(devices))


def plan_of(family: str = "llama-2-chat", *, options: dict[str, Any] | None = None, **sizing: Any) -> SizedPlan:
    """A plan for a built-in family, with the weights in a folder."""
    return sized(launch_of(family, options=options), **sizing)


def pooling_plan(model_type: ModelType) -> SizedPlan:
    """A plan for an embedding or rerank model."""
    family = ModelFamily(
        model_name="pooled",
        context_length=512,
        model_lang=("en",),
        model_ability=("embed",),
        model_specs=(spec_of("pytorch", "none"),),
        model_type=model_type,
    )
    version = ModelVersion(family=family, spec=family.model_specs[0], quantization="none")
    return sized(launch_of(version=version))


def spec_of(model_format: ModelFormat, *quantizations: str) -> ModelSpec:
    return ModelSpec(
        model_format=model_format,
        model_size_in_billions=7,
        quantizations=quantizations,
        sources=(),
    )


def host_of(
    *,
    flags: frozenset[str] = AVX2,
    gpus: int = 0,
    cuda: tuple[int, int] = (13, 0),
    capability: tuple[int, int] = (9, 0),
    no_gpu_reason: str | None = None,
) -> Host:
    return Host(
        physical_cores=2,
        memory_total=16 * GIB,
        memory_available=16 * GIB,
        gpus=tuple(Gpu(i, "NVIDIA X", 24 * GIB, 24 * GIB, capability) for i in range(gpus)),
        cpu_flags=flags,
        driver=Driver("550.54", cuda) if gpus else None,
        no_gpu_reason=no_gpu_reason,
    )


def value_of(argv: tuple[str, ...], option: str) -> str:
    """The word after an option."""
    return argv[argv.index(option) + 1]
