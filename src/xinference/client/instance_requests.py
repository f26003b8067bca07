"""The requests about launched models: their state, their replicas and their logs; see `request`."""

from __future__ import annotations

from collections.abc import Sequence

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, StreamRequest, path, query_of


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


def set_terms(
    model_uid: str, ttl: float | None = None, pin: bool | None = None, priority: int | None = None
) -> Request[Json]:
    """Change when a model on demand is unloaded, without a restart; returns its description.

    Args:
        ttl: seconds without a request until it is unloaded; 0: only when its memory is needed.
        pin: never unload it for another model.
        priority: models of the lowest priority are unloaded first.

    None leaves a value as it is.
    """
    values = {"ttl": ttl, "pin": pin, "priority": priority}
    body = {name: value for name, value in values.items() if value is not None}
    return Request(method="PATCH", path=path("v1", "models", model_uid), body=body, read=answers.as_object)


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
