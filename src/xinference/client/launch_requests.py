"""The requests about launches: begun, planned, followed, cancelled, and stored for the next server; see `request`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, StreamRequest, path, query_of
from xinference.launch.model_size import whole_size

_AUTOSTART = "/v1/autostart/models"


def launch_model(
    model_name: str,
    model_type: str = "LLM",
    model_engine: str | None = None,
    model_uid: str | None = None,
    model_size_in_billions: int | float | str | None = None,
    model_format: str | None = None,
    quantization: str | None = None,
    replica: int = 1,
    n_worker: int = 1,
    n_gpu: int | str | None = "auto",
    peft_model_config: Json | None = None,
    request_limits: int | None = None,
    worker_ip: str | None = None,
    gpu_idx: int | Sequence[int] | None = None,
    replica_config: Sequence[Json] | None = None,
    model_path: str | None = None,
    enable_thinking: bool | None = None,
    enable_virtual_env: bool | None = None,
    virtual_env_packages: Sequence[str] | None = None,
    envs: Mapping[str, str] | None = None,
    virtual_env_find_links: Sequence[str] | None = None,
    *,
    max_output_tokens: int | None = None,
    max_request_seconds: float | None = None,
    download_hub: str | None = None,
    on_demand: bool = False,
    ttl: float | None = None,
    keep_alive: float | str | None = None,
    pin: bool = False,
    priority: int = 0,
    aliases: Sequence[str] | None = None,
    new: bool = False,
    allow_plain_gang: bool = False,
    labels: Mapping[str, str] | None = None,
    applied_from: str | None = None,
    wait_ready: bool = True,
    **kwargs: Any,
) -> Request[str]:
    """Launch a model; returns its uid when the model is ready, or at once if `wait_ready` is False.

    The same launch again gives the model that runs, and starts it if it is unloaded or has failed.

    Args:
        n_gpu: ``auto``, a number for each replica, or None for only the CPU.
        gpu_idx: indices of the GPUs to use, assigned to the replicas in turn; overrides `n_gpu`.
        request_limits: maximum number of requests at the same time.
        max_output_tokens: maximum number of tokens of each answer.
        max_request_seconds: maximum time that the engine spends on one request.
        envs: environment variables of the engine's processes.
        on_demand: load the model by its first request, and unload it when it is idle.
        n_worker: number of workers of a cluster that compute each replica together.
        labels: use only the workers of a cluster that have these labels.
        allow_plain_gang: let these workers connect without encryption, even without the label ``fabric=private``.
        ttl: seconds without a request until an on-demand model is unloaded; 0: only when its memory is needed.
        keep_alive: `ttl` in Ollama's form, such as ``5m``.
        pin: never unload an on-demand model for another one.
        priority: of the idle on-demand models, lower priority is evicted first.
        aliases: further names of the model in requests.
        new: launch a copy, also if the same launch runs already; a taken uid gets a suffix.
        kwargs: options of the engine, by the engine's own names.
    """
    arguments = locals()
    del arguments["wait_ready"], arguments["kwargs"]
    return Request(
        method="POST",
        path="/v1/models",
        query={"wait_ready": str(bool(wait_ready)).lower()},
        body={**kwargs, **_launch_fields(arguments)},
        read=answers.as_model_uid,
        without_timeout=wait_ready,
    )


#: Fields that are sent even with their default values: servers of other versions have other defaults.
_ALWAYS_SENT = ("model_name", "model_type", "replica", "n_gpu")


def _launch_fields(arguments: Mapping[str, Any]) -> Json:
    """The arguments of `launch_model` as JSON; other arguments with their default values are omitted."""
    parameters = signature(launch_model).parameters
    fields = {
        name: value
        for name, value in arguments.items()
        if name in _ALWAYS_SENT or (value is not None and value != parameters[name].default)
    }
    if "model_size_in_billions" in fields:
        fields["model_size_in_billions"] = whole_size(fields["model_size_in_billions"])
    return {name: _as_json(value) for name, value in fields.items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def begin_launch(model_name: str, **arguments: Any) -> Request[Json]:
    """Begin `launch_model` with the same arguments, without waiting.

    ``found`` of the answer is the state of an earlier, equal launch (``running``, ``launching``, ``unloaded``,
    ``failed``), or None for a new one.
    """
    launch = launch_model(model_name, **arguments, wait_ready=False)
    return Request(method=launch.method, path=launch.path, query=launch.query, body=launch.body, read=answers.as_object)


def plan_launch(model_name: str, **arguments: Any) -> Request[Json]:
    """The plan of `launch_model` with the same arguments, with reasons; nothing is launched."""
    launch = launch_model(model_name, **arguments)
    return Request(
        method=launch.method, path=launch.path, query={"dry_run": "true"}, body=launch.body, read=answers.as_object
    )


def follow_events(model_uid: str) -> StreamRequest[Json]:
    """The events of a launch as they happen, up to READY, FAILED or TERMINATED."""
    return StreamRequest(
        path=path("v1", "models", model_uid, "events"), query={"follow": "true"}, decoder=answers.LaunchEvents
    )


def get_launch_model_progress(model_uid: str) -> Request[Json]:
    """The progress of a launch: ``progress`` (0 to 1), ``stage``, ``download_files`` and ``replicas``."""
    return Request(path=path("v1", "models", model_uid, "progress"), read=answers.as_object)


def cancel_launch_model(model_uid: str) -> Request[None]:
    """Cancel a launch."""
    return Request(method="POST", path=path("v1", "models", model_uid, "cancel"), read=answers.as_nothing)


def launch_history(model_name: str | None = None, failed: bool = False) -> Request[list[Json]]:
    """The last launches, newest first, also those that have failed or ended; with `failed` only the failed ones."""
    query = query_of(model_name=model_name) | ({"failed": "true"} if failed else {})
    return Request(path="/v1/launch_history", query=query, read=answers.as_objects)


def get_autostart_config() -> Request[Json]:
    """The launches that the next server restores: ``models``, each with its ``launch`` and ``state``."""
    return Request(path=_AUTOSTART, read=answers.as_object)


def get_autostart_model_summary() -> Request[Json]:
    """The uids of the launches that the next server restores: ``models``."""
    return Request(path=f"{_AUTOSTART}/summary", read=answers.as_object)


def upsert_autostart_model(entry: Json) -> Request[Json]:
    """Launch a model that the next server restores; returns at once.

    Args:
        entry: ``launch`` has the fields of the launch. With ``enabled`` False a running model is not restored.
    """
    return Request(method="POST", path=_AUTOSTART, body=entry, read=answers.as_object)


def remove_autostart_model(model_uid: str) -> Request[Json]:
    """Exclude a running model from those that the next server restores; returns the remaining ones, as the summary."""
    return Request(method="DELETE", path=f"{_AUTOSTART}{path(model_uid)}", read=answers.as_object)
