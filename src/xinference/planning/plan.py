"""From a request and the facts to a `LaunchDraft`, and on to a `ResolvedLaunch`. Pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from xinference.catalog.models import Source
from xinference.engines.base import Engine
from xinference.errors import bad_request
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchDraft, ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import choose_version
from xinference.planning.facts import Facts
from xinference.planning.placement import chosen

MAX_REPLICAS = 64
MODEL_TYPES = frozenset({"llm", "embedding", "rerank"})


def draft_launch(facts: Facts, request: LaunchRequest, uid: str) -> LaunchDraft:
    """Decide all that follows from the request and the host.

    Raises:
        Problem: 400 with the reason and the way out.
    """
    check_request(facts, request)
    version, engine, why = choose_version(facts, request)
    name = engine.table.engine
    engine.variables.check(request.envs)
    checked = engine.check_options(request.options, facts.known_options.get(name, {})) if request.options else {}
    options, option_reasons = engine.complete_options(version, request, checked)
    use_gpu = wants_gpu(facts.host, request)
    filled = msgspec.structs.replace(
        request,
        model_uid=uid,
        model_name=version.family.model_name,
        model_engine=name,
        model_size_in_billions=version.spec.model_size_in_billions,
        model_format=version.spec.model_format,
        quantization=version.quantization,
    )
    reasons = (f"engine {name}: {why}", *option_reasons, _device_reason(facts.host, request, use_gpu))
    return LaunchDraft(uid, filled, version, name, use_gpu, facts.host.physical_cores, options, reasons)


def resolve_launch(draft: LaunchDraft, origin: Source | Path, why: str, engine: Engine) -> ResolvedLaunch:
    """Give a draft the origin of its weights, chosen for the reason `why`, and the files that its engine adds.

    Raises:
        Problem: 400, a file that the options name is not there.
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


def is_same_launch(draft: LaunchDraft, running: LaunchRequest) -> bool:
    """Whether a draft asks for what runs already; a hub that the draft leaves open is the running one's."""
    request = draft.request
    if request.model_path is None and request.download_hub is None:
        request = msgspec.structs.replace(request, download_hub=running.download_hub)
    return request == running


def wants_gpu(host: Host, request: LaunchRequest) -> bool:
    """Named devices win over `n_gpu`; a device in MIG mode takes nothing as a whole."""
    usable = any(not gpu.mig for gpu in host.gpus)
    return request.gpu_idx is not None or (usable and request.n_gpu is not None)


def check_request(facts: Facts, request: LaunchRequest) -> None:
    """Refuse what no plan can make good: the model's type, the replicas, the devices."""
    if request.model_type.lower() not in MODEL_TYPES:
        raise bad_request(
            f"Model type {request.model_type!r} is not served.", hint="This version serves LLM, embedding and rerank."
        )
    if not 1 <= request.replica <= MAX_REPLICAS:
        raise bad_request(f"replica is {request.replica}, and must be from 1 to {MAX_REPLICAS}.")
    if request.ttl is not None and not 0 <= request.ttl < float("inf"):
        raise bad_request(f"ttl is {request.ttl:g}, and must be 0 or a number of seconds.")
    if not request.on_demand and (request.ttl is not None or request.pin or request.priority):
        raise bad_request(
            "ttl, pin, priority and keep_alive are for models on demand.",
            hint="Launch it with --on-demand (on_demand).",
        )
    wanted, have = request.n_gpu, len(facts.host.gpus)
    if isinstance(wanted, str) and wanted != "auto":
        raise bad_request(f"n_gpu is {wanted!r}; it takes auto, none or a number.")
    if request.gpu_idx is not None:
        chosen(facts.host.gpus, request.gpu_idx, request.replica)
    elif isinstance(wanted, int) and not 1 <= wanted <= have:
        raise bad_request(
            f"n_gpu is {wanted}, and this host has {have} GPU{'' if have == 1 else 's'}.",
            hint="Use --n-gpu auto, or --n-gpu none for the CPU.",
            code="no_such_device",
        )


def _device_reason(host: Host, request: LaunchRequest, use_gpu: bool) -> str:
    if use_gpu:
        asked = f"n_gpu {request.n_gpu}" if request.gpu_idx is None else f"gpu_idx {list(request.gpu_idx)}"
        return f"device: {', '.join(gpu.name for gpu in host.gpus)} ({asked})"
    split = "its GPUs are split into MIG instances" if host.gpus else "there is no GPU"
    why = "asked for with n_gpu none" if request.n_gpu is None else split
    return f"device: CPU, {host.physical_cores} threads ({why})"
