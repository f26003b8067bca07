"""The requests about the catalog: engines, registrations and cached weights; see `request`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, StreamRequest, path, query_of
from xinference.engines.listings import LISTINGS

_CACHE = "/v1/cache/models"


def query_engine_by_model_name(
    model_name: str, model_type: str | None = "LLM", enable_virtual_env: bool | None = None
) -> Request[Json]:
    """Engine -> the versions of the model that it runs, or the reason why it runs none.

    Args:
        enable_virtual_env: no effect.
    """
    query = {} if enable_virtual_env is None else {"enable_virtual_env": str(enable_virtual_env).lower()}
    return Request(path=path("v1", "engines", model_type or "LLM", model_name), query=query, read=answers.as_object)


def engine_rows(model_name: str) -> Request[list[Json]]:
    """For each version of the model and each engine: ``ok``, or the ``reason`` why the server can't run it."""
    return Request(path=path("v1", "engines", model_name), query={"detailed": "true"}, read=answers.as_objects)


def engine_models(method: str) -> Callable[[], Request[Json]]:
    """The function of the client's method with this name, which lists the models of one engine."""
    listing = next(listing for listing in LISTINGS if listing.method == method)

    def request() -> Request[Json]:
        return Request(path=listing.path, read=answers.as_object)

    request.__name__ = method
    request.__doc__ = f"The model families that {listing.engine} can run, for ``chat`` and for ``generate``."
    return request


def register_model(model_type: str, model: str, persist: bool, worker_ip: str | None = None) -> Request[None]:
    """Register a custom model.

    Args:
        model: its description, as the text of a JSON document.
        persist: keep it after a restart of the server.
        worker_ip: no effect.
    """
    body = {"model": model, "persist": persist, "worker_ip": worker_ip}
    return Request(
        method="POST", path=path("v1", "model_registrations", model_type), body=body, read=answers.as_nothing
    )


def unregister_model(model_type: str, model_name: str) -> Request[None]:
    """Remove a custom model."""
    model = path("v1", "model_registrations", model_type, model_name)
    return Request(method="DELETE", path=model, read=answers.as_nothing)


def list_model_registrations(
    model_type: str = "LLM", detailed: bool = False, summary: bool = False
) -> Request[list[Json]]:
    """The model families that can be launched.

    Args:
        model_type: LLM, embedding or rerank.
        detailed: all fields of each.
        summary: abilities, sizes and formats of each, without the versions.
    """
    query = {"detailed": str(detailed).lower()} | ({"summary": "true"} if summary else {})
    return Request(path=path("v1", "model_registrations", model_type), query=query, read=answers.as_objects)


def list_fits(model_type: str | None = None, part: str = "") -> Request[list[Json]]:
    """For each version and engine: whether it fits in the server's memory ``now``, ``after_unloading`` or ``never``.

    Args:
        model_type: only the models of this type.
        part: only the models with this text in their name.
    """
    return Request(path="/v1/fits", query=query_of(model_type=model_type, part=part or None), read=answers.as_objects)


def list_engine_options(engine: str) -> Request[Json]:
    """The options that a launch on an engine may have, by name with their types."""
    return Request(path=path("v1", "engine_options", engine), read=answers.as_object)


def get_model_registration(model_type: str, model_name: str) -> Request[Json]:
    """One model family."""
    return Request(path=path("v1", "model_registrations", model_type, model_name), read=answers.as_object)


def list_cached_models(model_name: str | None = None, worker_ip: str | None = None) -> Request[list[Json]]:
    """The cached weights on the server's machine: path, size in bytes, and whether they are complete."""
    return Request(path=_CACHE, query=query_of(model_name=model_name, worker_ip=worker_ip), read=answers.as_list)


def list_deletable_models(model_version: str, worker_ip: str | None = None) -> Request[Json]:
    """The files that `confirm_and_remove_model` would delete: ``paths``, and the versions they are ``shared_with``."""
    query = query_of(model_version=model_version, worker_ip=worker_ip)
    return Request(path=f"{_CACHE}/files", query=query, read=answers.as_object)


def remove_cached_model(model_version: str, worker_ip: str | None = None) -> Request[Json]:
    """Delete the cached weights of a version such as ``llama-2-chat--7B--ggufv2--Q4_K_M``: ``freed_bytes``."""
    query = query_of(model_version=model_version, worker_ip=worker_ip)
    return Request(method="DELETE", path=_CACHE, query=query, read=answers.as_object, without_timeout=True)


def confirm_and_remove_model(model_version: str, worker_ip: str | None = None) -> Request[bool]:
    """Delete the cached weights of a version; True if they are deleted."""
    removal = remove_cached_model(model_version, worker_ip)
    return Request(
        method=removal.method, path=removal.path, query=removal.query, read=answers.as_result, without_timeout=True
    )


def download_model(model_name: str, **arguments: Any) -> Request[str]:
    """Start to download a version, with the arguments of `launch_model`; returns its version id at once."""
    body = {"model_name": model_name, **{name: value for name, value in arguments.items() if value is not None}}
    return Request(method="POST", path=_CACHE, body=body, read=answers.as_model_version)


def follow_download(model_version: str) -> StreamRequest[Json]:
    """The events of a download as they happen, up to READY (whose ``model`` has the path), FAILED or TERMINATED."""
    events = path("v1", "cache", "models", model_version, "events")
    return StreamRequest(path=events, query={"follow": "true"}, decoder=answers.LaunchEvents)


def cancel_download(model_version: str) -> Request[None]:
    """Cancel a download; the next download of the version resumes it."""
    job = path("v1", "cache", "models", model_version, "download")
    return Request(method="DELETE", path=job, read=answers.as_nothing)
