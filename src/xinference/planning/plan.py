"""Makes a `LaunchDraft` of a request, and a `ResolvedLaunch` of a draft. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import Source
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, join_names
from xinference.hardware.devices import Host
from xinference.launch import tuning
from xinference.launch.plan import LaunchDraft, ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import choose_version, missing_environment, wants_gpu
from xinference.planning.facts import Facts
from xinference.planning.placement import group_devices
from xinference.units import GIB

MAX_REPLICAS = 64
MODEL_TYPES = frozenset({"llm", "embedding", "rerank"})


def draft_launch(facts: Facts, request: LaunchRequest, uid: str) -> LaunchDraft:
    """Make the decisions that need only the request and the host.

    Raises:
        Problem: 400, the request can't be served on this host.
    """
    check_request(facts, request)
    choice = choose_version(facts, request)
    version, engine = choice.version, choice.engine
    name = engine.table.engine
    engine.variables.check(request.envs)
    tuning.is_off(request.options)
    given = tuning.without_own(request.options)
    checked = _checked_options(facts, engine, given) if given else {}
    options, option_reasons = engine.complete_options(version, request, checked)
    use_gpu = wants_gpu(facts, request)
    environment = _environment_reason(facts, engine)
    filled = msgspec.structs.replace(
        request,
        model_uid=uid,
        model_name=version.family.model_name,
        model_engine=name,
        model_size_in_billions=version.spec.model_size_in_billions,
        model_format=version.spec.model_format,
        quantization=version.quantization,
    )
    reasons = (
        *choice.reasons,
        f"engine {name}: {choice.engine_reason}",
        *environment,
        *option_reasons,
        _device_reason(facts.host, request, use_gpu),
    )
    return LaunchDraft(
        uid,
        filled,
        version,
        name,
        use_gpu,
        facts.host.physical_cores,
        options,
        reasons,
        choices=(*choice.choices, *environment),
    )


def _checked_options(facts: Facts, engine: Engine, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the engine's own names; a refused one that another engine has is refused with that engine's name.

    Raises:
        Problem: 400.
    """
    try:
        return engine.check_options(options, facts.known_options.get(engine.table.engine, {}))
    except Problem as problem:
        if problem.code != Code.UNKNOWN_OPTION:
            raise
        name = next((option for option in options if f"--{option}." in problem.cause), None)
        owners = [each for each in facts.engines.values() if name is not None and _has_option(facts, each, name)]
        if not owners:
            raise
        listed = join_names([each.table.engine for each in owners])
        raise problem.replace(hint=f"It is an option of {listed}: choose the engine with --model-engine.") from None


def _has_option(facts: Facts, engine: Engine, name: str) -> bool:
    return name in engine.open_options(facts.known_options.get(engine.table.engine, {}))


def resolve_launch(draft: LaunchDraft, origin: Source | Path, why: str, engine: Engine) -> ResolvedLaunch:
    """Add to a draft the origin of its weights, with the reason `why`, and the files that its engine adds.

    Raises:
        Problem: 400, a file that the options name does not exist.
    """
    if isinstance(origin, Path):
        files = engine.choose_files(None, draft.version, draft.options)
        reason = f"weights at {origin}: {why}"
    else:
        files = engine.choose_files(origin, draft.version, draft.options)
        request = msgspec.structs.replace(draft.request, download_hub=origin.hub)
        draft = replace(draft, request=request)
        reason = f"hub {origin.hub} ({origin.model_id}): {why}"
    reasons = (*draft.reasons, reason, *files.reasons)
    return ResolvedLaunch(draft, files.source or origin, files.options, reasons)


def check_request(facts: Facts, request: LaunchRequest) -> None:
    """Check the fields whose validity does not depend on the model: type, replicas, residency, devices.

    Raises:
        Problem: 400.
    """
    if request.model_type.lower() not in MODEL_TYPES:
        raise bad_request(
            f"Model type {request.model_type!r} is not served.", hint="This version serves LLM, embedding and rerank."
        )
    if not 1 <= request.replica <= MAX_REPLICAS:
        raise bad_request(f"replica is {request.replica}, and must be from 1 to {MAX_REPLICAS}.")
    if request.max_output_tokens is not None and request.model_type.lower() != "llm":
        raise bad_request("max_output_tokens is for models that write text.", hint="Leave it out.")
    if request.ttl is not None and not 0 <= request.ttl < float("inf"):
        raise bad_request(f"ttl is {request.ttl:g}, and must be 0 or a number of seconds.")
    if not request.on_demand and (request.ttl is not None or request.pin or request.priority):
        raise bad_request(
            "ttl, pin, priority and keep_alive are for models on demand.",
            hint="Launch it with --on-demand (on_demand).",
        )
    n_gpu, existing = request.n_gpu, len(facts.host.gpus)
    if isinstance(n_gpu, str) and n_gpu != "auto":
        raise bad_request(f"n_gpu is {n_gpu!r}, and must be auto, none or a number.")
    if request.gpu_idx is not None:
        group_devices(facts.host.gpus, request.gpu_idx, request.replica)
    elif isinstance(n_gpu, int) and not 1 <= n_gpu <= existing:
        raise bad_request(
            f"n_gpu is {n_gpu}, and this host has {existing} GPU{'' if existing == 1 else 's'}.",
            hint="Use --n-gpu auto, or --n-gpu none for the CPU.",
            code=Code.NO_SUCH_DEVICE,
        )


def _environment_reason(facts: Facts, engine: Engine) -> tuple[str, ...]:
    """The packages that a launch on the engine installs first; empty: none."""
    missing = missing_environment(facts, engine)
    if missing is None:
        return ()
    size = f"{missing.size_bytes / GIB:.1f} GiB"
    return (f"environment {missing.spec.name}: {size} of packages are installed first",)


def _device_reason(host: Host, request: LaunchRequest, use_gpu: bool) -> str:
    if use_gpu:
        field = f"n_gpu {request.n_gpu}" if request.gpu_idx is None else f"gpu_idx {list(request.gpu_idx)}"
        return f"device: {', '.join(gpu.name for gpu in host.gpus)} ({field})"
    no_gpu = "its GPUs are split into MIG instances" if host.gpus else "there is no GPU"
    reason = "requested with n_gpu none" if request.n_gpu is None else no_gpu
    return f"device: CPU, {host.physical_cores} threads ({reason})"
