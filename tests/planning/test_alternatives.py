"""What fits in place of a refused launch: each suggestion is a command that is planned without a refusal."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.plans import launch_of
from tests.planning.test_sizing import host
from xinference.catalog.models import ModelFamily, ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.cli.options.native_options import split
from xinference.engines.registry import all_engines
from xinference.errors import Suggestion
from xinference.hardware.devices import Host
from xinference.launch.command_line import launch_command
from xinference.launch.match import match
from xinference.launch.plan import ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.planning.alternatives import Refused, alternatives, smaller_downloads
from xinference.planning.eviction import HOST, Bytes
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.sizing import size_launch
from xinference.planning.weights_estimate import registry_shape

GIB = 1024**3
SEVEN: dict[str, Any] = {"model_size_in_billions": 7, "model_format": "ggufv2"}
OPTIONS = {"-s": 1, "-f": 1, "-q": 1, "-en": 1, "-u": 1, "-mp": 1, "--n-gpu": 1, "-r": 1, "--on-demand": 0, "--env": 2}


def machine(gib: float) -> Host:
    return Host(2, 64 * GIB, int(gib * GIB))


def refused(
    gib: float,
    engine: str = "llama.cpp",
    *,
    options: Mapping[str, Any] | None = None,
    reserved: Mapping[str, Bytes] | None = None,
    on: Host | None = None,
    model_name: str = "qwen2.5-instruct",
    **fields: Any,
) -> Refused:
    request = LaunchRequest(model_name=model_name, options=dict(options or {}), **fields)
    version = match(builtin_families(), request)
    here = on or machine(gib)
    launch = launch_of(request=request, version=version, engine=engine, options=options, use_gpu=bool(here.gpus))
    held = reserved or {}

    def occupancy(without: Collection[str]) -> Occupancy:
        freed = sum(held[uid].get(HOST, 0) for uid in without)
        return Occupancy(reclaimable={HOST: freed})

    assert version.spec.shape is not None
    return Refused(launch, request, registry_shape(version.spec.shape, version), here, all_engines(), occupancy, held)


def of_kind(found: Collection[Suggestion], change: str) -> Suggestion:
    return next(suggestion for suggestion in found if suggestion.change == change)


def planned(command: str, case: Refused) -> ResolvedLaunch:
    """The launch of a command line, sized on the machine of the refused one; raises if it is refused."""
    words = shlex.split(command)
    assert words[:2] == ["xinference", "launch"]
    own, native = split(words[3:], OPTIONS)
    named = {own[i]: own[i + 1] for i in range(0, len(own), 2)}
    request = LaunchRequest(
        model_name=words[2],
        model_size_in_billions=named["-s"].removesuffix("B"),
        model_format=named["-f"],
        quantization=named["-q"],
        options=native,
    )
    version: ModelVersion = match(builtin_families(), request)
    engine = named.get("-en", case.launch.engine)
    launch = launch_of(request=request, version=version, engine=engine, options=native, use_gpu=case.launch.use_gpu)
    assert version.spec.shape is not None
    memory = available(case.host, case.occupancy_without(()))
    shape = registry_shape(version.spec.shape, version)
    size_launch(launch, Path(), shape, memory, all_engines()[engine].memory)
    return launch


def test_a_long_context_is_replaced_by_the_largest_round_one_that_fits() -> None:
    case = refused(
        8,
        **SEVEN,
        quantization="q4_k_m",
        options={"n_ctx": 32000, "n_parallel": 8},
    )
    found = of_kind(alternatives(case), "context")
    launch = planned(found.command, case)
    assert launch.options["n_parallel"] == 8 and launch.options["n_ctx"] in (4096, 8192)
    assert "GiB of memory" in found.description


def test_a_model_too_large_is_replaced_by_a_smaller_quantization_or_size() -> None:
    case = refused(5, **SEVEN, quantization="q8_0")
    found = alternatives(case)
    smaller = planned(of_kind(found, "quantization").command, case).version
    assert (smaller.size, smaller.spec.model_format) == ("7", "ggufv2")
    assert planned(of_kind(found, "size").command, case).version.size == "3"


def test_a_format_that_must_be_converted_is_not_suggested_unless_it_is_named() -> None:
    request: dict[str, Any] = {"model_size_in_billions": 70, "quantization": "q8_0"}
    for model_format, expected in ((None, "ggufv2"), ("ggmlv3", "ggmlv3")):
        case = refused(60, model_name="llama-2-chat", model_format=model_format, **request)
        assert case.version.spec.model_format == "ggmlv3"
        for change in ("quantization", "size"):
            assert planned(of_kind(alternatives(case), change).command, case).version.spec.model_format == expected


def test_options_of_the_request_stay_in_every_suggestion_for_its_engine() -> None:
    case = refused(
        5,
        **SEVEN,
        quantization="q8_0",
        model_uid="mine",
        n_gpu=None,
        options={"cache_type_k": "q8_0"},
    )
    for change in ("quantization", "size"):
        command = of_kind(alternatives(case), change).command
        assert "-u mine" in command and "--n-gpu none" in command and "--cache_type_k q8_0" in command


def test_what_no_gpu_holds_is_suggested_on_another_engine() -> None:
    case = refused(0, "vLLM", model_size_in_billions=14, quantization="none", model_format="pytorch", on=host(1, 24))
    found = of_kind(alternatives(case), "engine")
    assert "-en" in found.command
    planned(found.command, case)


def test_a_smaller_size_on_another_engine_is_suggested_where_no_single_change_fits() -> None:
    case = refused(1.2, "vLLM", model_size_in_billions=14, quantization="none", model_format="pytorch")
    [found] = alternatives(case)
    assert found.change == "engine" and found.description.startswith("Size 1.5B on llama.cpp with ggufv2 ")
    assert planned(found.command, case).engine == "llama.cpp"


def test_the_smallest_model_that_makes_room_is_named() -> None:
    held = {"small": {HOST: GIB // 8}, "middle": {HOST: 4 * GIB}, "large": {HOST: 20 * GIB}}
    case = refused(3, **SEVEN, quantization="q4_k_m", reserved=held)
    found = of_kind(alternatives(case), "unload")
    assert found.command.startswith("xinference terminate --model-uid middle && xinference launch ")
    assert "4.0 GiB" in found.description


def test_several_models_are_named_if_one_does_not_suffice() -> None:
    held: dict[str, Bytes] = {uid: {HOST: 2 * GIB} for uid in ("a", "b", "c")}
    case = refused(1, **SEVEN, quantization="q4_k_m", reserved=held)
    assert of_kind(alternatives(case), "unload").command.count("terminate") == 3


def test_nothing_is_suggested_where_nothing_fits() -> None:
    case = refused(0.05, **SEVEN, quantization="q4_k_m")
    assert alternatives(case) == ()


def test_a_full_disk_is_answered_with_weights_that_fit_on_it() -> None:
    case = refused(60, **SEVEN, quantization="q8_0")
    found = smaller_downloads(replace(case, fits_disk=lambda size: size < 4 * GIB))
    version = planned(of_kind(found, "quantization").command, case).version
    assert version.spec.shape is not None
    assert registry_shape(version.spec.shape, version).weights_bytes < 4 * GIB
    assert {suggestion.change for suggestion in found} == {"quantization", "size"}


def test_a_path_has_neither_other_sizes_nor_other_quantizations() -> None:
    family: ModelFamily = builtin_families()["qwen2.5-instruct"]
    case = refused(
        3,
        **SEVEN,
        quantization="q8_0",
        asked_name="/m/x.gguf",
        family=family,
        model_path="/m/x.gguf",
    )
    assert alternatives(case) == ()


@pytest.mark.parametrize("name", ["./my model.gguf", "org/repo", "llama-2-chat"])
def test_a_command_line_quotes_what_a_shell_would_split(name: str) -> None:
    version = match(builtin_families(), LaunchRequest(model_name="llama-2-chat"))
    request = LaunchRequest(
        model_name="x",
        asked_name=name,
        on_demand=True,
        ttl=5.0,
        envs={"A": "b c"},
        options={"x": {"k": [1, "a b"]}, "flag": True},
    )
    words = shlex.split(launch_command(request, version))
    assert words[2] == name
    assert words[-4:] == ["--x", '{"k": [1, "a b"]}', "--flag", "true"]
    assert ("-q" in words) == (not name.endswith(".gguf"))
    assert words[words.index("--env") + 1 :][:2] == ["A", "b c"]
