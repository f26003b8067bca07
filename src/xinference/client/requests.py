"""The table of requests: for each, its method, path, query, body and how its answer is read.

`Client` runs them; whatever runs them otherwise (an async client, a model handle) uses the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from xinference.client import answers
from xinference.client.answers import Decoder, Json

T = TypeVar("T")
_CACHE = "/v1/cache/models"


@dataclass(frozen=True, kw_only=True)
class Request(Generic[T]):
    """One request whose answer is read as a whole."""

    method: str = "GET"
    path: str
    read: Callable[[bytes], T]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    patient: bool = False
    """The answer may take as long as it takes: a model loads or generates first."""


@dataclass(frozen=True, kw_only=True)
class StreamRequest(Generic[T]):
    """One request whose answer is read as it comes, without a limit on its time."""

    method: str = "GET"
    path: str
    decoder: Callable[[], Decoder[T]]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None


def _model(uid: str, rest: str = "") -> str:
    return f"/v1/models/{quote(uid, safe='')}{rest}"


def health() -> Request[Json]:
    return Request(path="/health", read=answers.as_object)


def status() -> Request[Json]:
    return Request(path="/status", read=answers.as_object)


def launch_model(body: Json, *, wait_ready: bool) -> Request[str]:
    query = {"wait_ready": str(wait_ready).lower()}
    return Request(
        method="POST", path="/v1/models", query=query, body=body, read=answers.as_model_uid, patient=wait_ready
    )


def plan_launch(body: Json) -> Request[Json]:
    return Request(method="POST", path="/v1/models", query={"dry_run": "true"}, body=body, read=answers.as_object)


def follow_events(uid: str) -> StreamRequest[Json]:
    return StreamRequest(path=_model(uid, "/events"), query={"follow": "true"}, decoder=answers.LaunchEvents)


def list_models() -> Request[list[Json]]:
    return Request(path="/v1/models", read=answers.as_data)


def list_instances() -> Request[list[Json]]:
    return Request(path="/v1/models/instances", read=answers.as_objects)


def describe_model(uid: str) -> Request[Json]:
    return Request(path=_model(uid), read=answers.as_object)


def terminate_model(uid: str) -> Request[None]:
    return Request(method="DELETE", path=_model(uid), read=answers.as_nothing)


def logs(uid: str, *, lines: int, follow: bool) -> StreamRequest[str]:
    query = {"lines": str(lines), "follow": str(follow).lower()}
    return StreamRequest(path=_model(uid, "/logs"), query=query, decoder=answers.Text)


def engines(model_name: str) -> Request[Json]:
    return Request(path=f"/v1/engines/{quote(model_name, safe='')}", read=answers.as_object)


def engine_rows(model_name: str) -> Request[list[Json]]:
    path = f"/v1/engines/{quote(model_name, safe='')}"
    return Request(path=path, query={"detailed": "true"}, read=answers.as_objects)


def registrations(model_type: str) -> Request[list[Json]]:
    path = f"/v1/model_registrations/{quote(model_type, safe='')}"
    return Request(path=path, query={"detailed": "true"}, read=answers.as_objects)


def registration(model_type: str, model_name: str) -> Request[Json]:
    path = f"/v1/model_registrations/{quote(model_type, safe='')}/{quote(model_name, safe='')}"
    return Request(path=path, read=answers.as_object)


def list_cached_models(model_name: str | None) -> Request[list[Json]]:
    query = {"model_name": model_name} if model_name else {}
    return Request(path=_CACHE, query=query, read=answers.as_list)


def list_deletable_models(model_version: str) -> Request[Json]:
    return Request(path=f"{_CACHE}/files", query={"model_version": model_version}, read=answers.as_object)


def remove_cached_model(model_version: str) -> Request[Json]:
    query = {"model_version": model_version}
    return Request(method="DELETE", path=_CACHE, query=query, read=answers.as_object, patient=True)


def download_model(body: Json) -> Request[str]:
    return Request(method="POST", path=_CACHE, body=body, read=answers.as_model_version)


def follow_download(model_version: str) -> StreamRequest[Json]:
    path = f"{_CACHE}/{quote(model_version, safe='')}/events"
    return StreamRequest(path=path, query={"follow": "true"}, decoder=answers.LaunchEvents)


def cancel_download(model_version: str) -> Request[None]:
    path = f"{_CACHE}/{quote(model_version, safe='')}/download"
    return Request(method="DELETE", path=path, read=answers.as_nothing)


def stop_cluster() -> Request[Json]:
    return Request(method="DELETE", path="/v1/clusters", read=answers.as_object)


def chat(uid: str, messages: Sequence[Json], config: Json) -> Request[Json]:
    body = {**config, "model": uid, "messages": list(messages), "stream": False}
    return Request(method="POST", path="/v1/chat/completions", body=body, read=answers.as_object, patient=True)


def chat_stream(uid: str, messages: Sequence[Json], config: Json) -> StreamRequest[Json]:
    body = {**config, "model": uid, "messages": list(messages), "stream": True}
    return StreamRequest(method="POST", path="/v1/chat/completions", body=body, decoder=answers.CompletionChunks)


def generate(uid: str, prompt: str, config: Json) -> Request[Json]:
    body = {**config, "model": uid, "prompt": prompt, "stream": False}
    return Request(method="POST", path="/v1/completions", body=body, read=answers.as_object, patient=True)


def generate_stream(uid: str, prompt: str, config: Json) -> StreamRequest[Json]:
    body = {**config, "model": uid, "prompt": prompt, "stream": True}
    return StreamRequest(method="POST", path="/v1/completions", body=body, decoder=answers.CompletionChunks)


def launch_body(
    *,
    model_name: str,
    model_type: str = "LLM",
    model_engine: str | None = None,
    model_uid: str | None = None,
    model_size_in_billions: int | str | None = None,
    model_format: str | None = None,
    quantization: str | None = None,
    replica: int = 1,
    n_gpu: int | str | None = "auto",
    gpu_idx: int | Sequence[int] | None = None,
    model_path: str | None = None,
    download_hub: str | None = None,
    **options: Any,
) -> Json:
    """The body of a launch: what is not given is left out, `options` are the engine's own and go as they are."""
    given = {
        "model_engine": model_engine,
        "model_uid": model_uid,
        "model_size_in_billions": model_size_in_billions,
        "model_format": model_format,
        "quantization": quantization,
        "gpu_idx": gpu_idx if gpu_idx is None or isinstance(gpu_idx, int) else list(gpu_idx),
        "model_path": model_path,
        "download_hub": download_hub,
    }
    return {
        **options,
        "model_name": model_name,
        "model_type": model_type,
        "replica": replica,
        "n_gpu": n_gpu,
        **{name: value for name, value in given.items() if value is not None},
    }
