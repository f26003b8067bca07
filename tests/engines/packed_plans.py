"""One launch of each packed format, with the command line that an engine gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.engines.plans import launch_of, sized
from xinference.catalog.models import ModelFormat, ModelSpec, ModelVersion, Source
from xinference.catalog.registry import builtin_families
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.engines.replica_placement import Placement
from xinference.engines.shared_parts import ReadsPacked
from xinference.launch.plan import SizedPlan
from xinference.launch.request import LaunchRequest

#: Format, quantization and engine options of a launch.
FORMATS: tuple[tuple[ModelFormat, str, dict[str, str]], ...] = (
    ("pytorch", "none", {}),
    ("pytorch", "fp8", {}),
    ("pytorch", "none", {"quantization": "fp8"}),
    ("pytorch", "none", {"quantization": "mxfp8"}),
    ("pytorch", "none", {"quantization": "bitsandbytes"}),
    ("pytorch", "none", {"quantization": "nvfp4_online"}),
    ("pytorch", "none", {"quantization": "fp8_per_block"}),
    ("pytorch", "Int8", {}),
    ("pytorch", "Int4", {}),
    ("gptq", "Int4", {}),
    ("gptq", "Int8", {}),
    ("awq", "Int4", {}),
    ("fp8", "FP8", {}),
    ("fp4", "MXFP4", {}),
    ("fp4", "NVFP4", {}),
    ("bnb", "4-bit", {}),
)


@dataclass(frozen=True)
class PackedLaunch:
    """A launch and its words."""

    title: str
    argv: tuple[str, ...]


def packed_launches(engine_name: str) -> tuple[PackedLaunch, ...]:
    """The launches of all formats that an engine supports, on two GPUs."""
    engine = all_engines()[engine_name]
    found = []
    for model_format, quantization, options in FORMATS:
        version = version_of(model_format, quantization)
        online = engine.online if isinstance(engine, ReadsPacked) else None
        methods = online.methods if online else {}
        if not engine.table.supports(version.spec, quantization) or (
            options and options["quantization"] not in methods
        ):
            continue
        title = f"{model_format} {quantization} {options.get('quantization', '')}".strip()
        found.append(PackedLaunch(title, _argv(engine, _plan(engine, version, options))))
    return tuple(found)


def version_of(model_format: ModelFormat, quantization: str) -> ModelVersion:
    """A version of a known family in this format."""
    family = builtin_families()["qwen3"]
    source = Source(hub="huggingface", model_id="me/some")
    spec = ModelSpec(
        model_format=model_format, model_size_in_billions=8, quantizations=(quantization,), sources=(source,)
    )
    return ModelVersion(
        family=msgspec.structs.replace(family, model_specs=(spec,)), spec=spec, quantization=quantization
    )


def _plan(engine: Engine, version: ModelVersion, options: dict[str, str]) -> SizedPlan:
    request = LaunchRequest(model_name=version.family.model_name)
    completed, _ = engine.complete_options(version, request, engine.check_options(options, {}))
    launch = launch_of(engine=engine.table.engine, version=version, options=completed, use_gpu=True)
    return sized(launch, devices=((0, 1),), tensor_parallel=2, memory_fraction=0.5)


def _argv(engine: Engine, plan: SizedPlan) -> tuple[str, ...]:
    argv = engine.command(plan, "k", Placement(Path("/env/bin/python"), (0, 1))).argv
    return argv[next(number for number, word in enumerate(argv) if word == "--port") :]
