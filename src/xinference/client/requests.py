"""The requests of the clients: for each its method, path, query, body and the parser of its answer.

Each function becomes a method of `Client` and of `AsyncClient` (see `calls`). `catalog_requests` has the requests about
models that can be launched, `model_requests` those to a running model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, StreamRequest, path, query_of
from xinference.launch.model_size import whole_size

_AUTOSTART = "/v1/autostart/models"


def health() -> Request[Json]:
    """``{"status": "ok"}`` if an Xinference server answers."""
    return Request(path="/health", read=answers.as_health)


def auth() -> Request[Json]:
    """``{"auth": true}`` if the server requires a key."""
    return Request(path="/v1/cluster/auth", read=answers.as_object)


def request_token(username: str, password: str) -> Request[str]:
    """A token for this user."""
    body = {"username": username, "password": password}
    return Request(method="POST", path="/token", body=body, read=answers.as_token)


def status() -> Request[Json]:
    """Version, uptime (seconds) and machine of the server."""
    return Request(path="/status", read=answers.as_object)


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


def list_models() -> Request[dict[str, Json]]:
    """The models that are ready, by uid."""
    return Request(path="/v1/models", read=answers.as_models)


def list_instances() -> Request[list[Json]]:
    """All deployments, with status, replicas and problem."""
    return Request(path="/v1/models/instances", read=answers.as_objects)


def get_instance_info(model_name: str | None = None, model_uid: str | None = None) -> Request[list[Json]]:
    """The deployments of this family or uid, with status, replicas and problem."""
    query = query_of(model_name=model_name, model_uid=model_uid)
    return Request(path="/v1/models/instances", query=query, read=answers.as_objects)


def describe_model(model_uid: str) -> Request[Json]:
    """The description of a deployment."""
    return Request(path=path("v1", "models", model_uid), read=answers.as_object)


def terminate_model(model_uid: str) -> Request[None]:
    """Terminate a model, or cancel its launch."""
    return Request(method="DELETE", path=path("v1", "models", model_uid), read=answers.as_nothing)


def set_aliases(model_uid: str, aliases: Sequence[str]) -> Request[Json]:
    """Give a model these further names in requests, in place of its earlier ones; returns its description."""
    names = path("v1", "models", model_uid, "aliases")
    return Request(method="PUT", path=names, body={"aliases": list(aliases)}, read=answers.as_object)


def unload_model(model_uid: str) -> Request[Json]:
    """Stop the engines of a model after their running requests, without forgetting it; returns its description.

    A model on demand is loaded by its next request, another one by `load_model`.
    """
    return _change(model_uid, "unload")


def load_model(model_uid: str, wait_ready: bool = True) -> Request[Json]:
    """Load a model that is unloaded or has failed; returns its description when it is ready."""
    return _change(model_uid, "load", wait_ready=wait_ready)


def restart_model(model_uid: str, wait_ready: bool = True) -> Request[Json]:
    """Stop a model after its running requests and start it again; returns its description when it is ready."""
    return _change(model_uid, "restart", wait_ready=wait_ready)


def _change(model_uid: str, word: str, **query: bool) -> Request[Json]:
    return Request(
        method="POST",
        path=path("v1", "models", model_uid, word),
        query={name: str(value).lower() for name, value in query.items()},
        read=answers.as_object,
        without_timeout=True,
    )


def reload_model(
    model_uid: str, model_config: Json, drain_timeout: float = 300, python_executable: str | None = None
) -> Request[Json]:
    """Begin a restart of a model with changed engine options; `get_model_reload_status` has its state.

    Args:
        model_config: options of the engine, by the engine's own names; None removes one.
        drain_timeout: maximum seconds for the answers that are on their way.
        python_executable: rejected; engines run in locked environments.
    """
    body: Json = {"model_config": model_config, "drain_timeout": drain_timeout}
    if python_executable is not None:
        body["python_executable"] = python_executable
    return Request(method="POST", path=path("v1", "models", model_uid, "reload"), body=body, read=answers.as_object)


def get_model_reload_status(model_uid: str) -> Request[Json]:
    """The state of the last reload: ``status`` (idle, reloading, ready, error), ``stage`` and ``error``."""
    return Request(path=path("v1", "models", model_uid, "reload"), read=answers.as_object)


def get_model_reload_config(model_uid: str) -> Request[Json]:
    """The engine options of a model: ``parameters`` (their types) and ``model_config`` (those that are set)."""
    return Request(path=path("v1", "models", model_uid, "reload", "config"), read=answers.as_object)


def launch_history(model_name: str | None = None, failed: bool = False) -> Request[list[Json]]:
    """The last launches, newest first, also those that have failed or ended; with `failed` only the failed ones."""
    query = query_of(model_name=model_name) | ({"failed": "true"} if failed else {})
    return Request(path="/v1/launch_history", query=query, read=answers.as_objects)


def list_model_replicas(model_uid: str) -> Request[list[Json]]:
    """The replicas of a model: id, address, devices and status of each."""
    return Request(path=path("v1", "models", model_uid, "replicas"), read=answers.as_objects)


def add_model_replica(
    model_uid: str,
    replica_config: Json | Sequence[Json] | None = None,
    replica: int = 1,
    model_engine: str | None = None,
    n_gpu: int | str | None = None,
) -> Request[Json]:
    """Add a replica (or `replica` of them) to a model."""
    body: Json = {"replica": replica} if replica != 1 else {}
    fields = {"replica_config": replica_config, "model_engine": model_engine, "n_gpu": n_gpu}
    body |= {name: value for name, value in fields.items() if value is not None}
    return Request(
        method="POST",
        path=path("v1", "models", model_uid, "replicas"),
        body=body,
        read=answers.as_object,
        without_timeout=True,
    )


def terminate_model_replica(model_uid: str, replica_id: int) -> Request[int]:
    """Remove a replica; returns the number of remaining ones."""
    replica = path("v1", "models", model_uid, "replicas", str(replica_id))
    return Request(method="DELETE", path=replica, read=answers.as_remaining_replicas)


def logs(model_uid: str, *, lines: int = 40, follow: bool = False, replica: int | None = None) -> StreamRequest[str]:
    """The last `lines` lines of the engine's output, in arbitrary pieces; with `follow` also its further output.

    Args:
        replica: the number of a replica; None: all of them.
    """
    query = {"lines": str(lines), "follow": str(follow).lower()}
    if replica is not None:
        query["replica"] = str(replica)
    return StreamRequest(path=path("v1", "models", model_uid, "logs"), query=query, decoder=answers.Text)


def log_from(model_uid: str, offset: str = "0", *, replica: int | None = None) -> Request[Json]:
    """The output of one replica from a place on: ``text``, and ``offset`` for the next call. At most 1 MiB.

    Args:
        offset: that of the last call.
        replica: the number of the replica; None: there is only one.
    """
    query = {"offset": offset} | ({} if replica is None else {"replica": str(replica)})
    log_path = path("v1", "models", model_uid, "logs")
    return Request(path=log_path, query=query, read=answers.as_log, with_headers=True)


def server_logs(*, lines: int = 40, follow: bool = False) -> StreamRequest[str]:
    """The last `lines` lines of the server's own log, in arbitrary pieces; with `follow` also its further lines."""
    query = {"lines": str(lines), "follow": str(follow).lower()}
    return StreamRequest(path="/v1/logs", query=query, decoder=answers.Text)


def engine_figures(model_uid: str) -> Request[list[Json]]:
    """What the engine of each replica reports: requests that run and wait, KV cache, prefix cache, tokens."""
    return Request(path=path("v1", "models", model_uid, "engine"), read=answers.as_objects)


def abort_request(model_uid: str, request_id: str, block_duration: int = 30) -> Request[Json]:
    """Abort the request that was sent with this ``request_id``: ``msg`` is DONE or NOT_FOUND.

    Args:
        block_duration: no effect; a later request with the same id is served.
    """
    abort = path("v1", "models", model_uid, "requests", request_id, "abort")
    return Request(method="POST", path=abort, body={"block_duration": block_duration}, read=answers.as_object)


def get_progress(request_id: str) -> Request[Json]:
    """The progress of a request: always 0, because only image models report one. See `get_launch_model_progress`."""
    return Request(path=path("v1", "requests", request_id, "progress"), read=answers.as_object)


def get_workers_info() -> Request[list[Json]]:
    """The machines that run models, with their models."""
    return Request(path="/v1/workers", read=answers.as_objects)


def get_supervisor_info() -> Request[Json]:
    """The address of the server."""
    return Request(path="/v1/supervisor", read=answers.as_object)


def abort_cluster() -> Request[Json]:
    """Stop the server and its engines; the next server restores the models."""
    return Request(method="DELETE", path="/v1/clusters", read=answers.as_object)


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
