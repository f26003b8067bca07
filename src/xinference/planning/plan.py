"""From a request and the facts to a `LaunchPlan`, or a `Problem`. Pure: no file, process or socket is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from xinference.catalog.models import ModelVersion, Source
from xinference.errors import bad_request
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import choose_version
from xinference.planning.facts import Facts
from xinference.planning.occupancy import NOTHING_ELSE
from xinference.planning.placement import chosen
from xinference.planning.sizing import settle

MAX_REPLICAS = 64
MODEL_TYPES = frozenset({"llm", "embedding", "rerank"})
ChooseSource = Callable[[ModelVersion, str | None], tuple[Source, str]]


def make_plan(
    facts: Facts,
    request: LaunchRequest,
    uid: str,
    *,
    choose_source: ChooseSource,
    path: Path | None = None,
    shape: ModelShape | None = None,
    told: tuple[str, ...] = (),
) -> LaunchPlan:
    """Decide everything that can be decided now.

    `path` is where the weights already are (given by the user, or in a cache), `shape` what their header says,
    and `told` what reading it gave to say.

    Raises:
        Problem: 400 with the reason and the way out.
    """
    check_request(facts, request)
    version, engine, why = choose_version(facts, request)
    name = engine.table.engine
    reasons = [f"engine {name}: {why}"]
    source: Source | None = None
    if request.model_path is None:
        source, hub_reason = choose_source(version, request.download_hub)
        reasons.append(f"hub {source.hub} ({source.model_id}): {hub_reason}")
    else:
        reasons.append(f"weights at {path or request.model_path}: given with --model-path")
    checked = engine.check_options(request.options, facts.known_options.get(name, {})) if request.options else {}
    options, option_reasons = engine.complete_options(version, request, checked)
    files = engine.choose_files(source, version, options)
    reasons += (*option_reasons, *files.reasons)
    use_gpu = wants_gpu(facts.host, request)
    reasons.append(_device_reason(facts.host, request, use_gpu))
    filled = msgspec.structs.replace(
        request,
        model_uid=uid,
        model_name=version.family.model_name,
        model_engine=name,
        model_size_in_billions=version.spec.model_size_in_billions,
        model_format=version.spec.model_format,
        quantization=version.quantization,
        download_hub=source.hub if source else request.download_hub,
    )
    plan = LaunchPlan(
        uid,
        filled,
        version,
        name,
        files.source,
        path,
        facts.host.physical_cores,
        use_gpu,
        files.options,
        None,
        tuple(reasons),
    )
    if path is None or shape is None:
        return plan
    return settle(
        plan, path, shape, facts.host, engine.memory, told, facts.around(plan) if facts.around else NOTHING_ELSE
    )


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
