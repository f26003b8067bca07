"""The fields of a launch are the same at each of their four places: command line, client, REST body and request.

A field that is added to one place must be added to the others, or be listed here with the reason why it is not there.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import msgspec
import pytest

from xinference.api.launch_body import LaunchBody
from xinference.api.routes.cache import DownloadBody
from xinference.cli.commands.launch import launch
from xinference.client import launch_requests
from xinference.launch.request import LaunchRequest

DOCS = Path(__file__).parents[1] / "docs"
MISSING = object()

#: Fields that the body turns into others.
ONLY_IN_BODY = {
    "replica_config": "becomes replica and gpu_idx",
    "enable_virtual_env": "no effect",
    "virtual_env_packages": "rejected",
    "virtual_env_find_links": "rejected",
    "peft_model_config": "becomes the engine's option lora_modules",
    "keep_alive": "becomes ttl",
    "new": "decides whether an equal launch is used",
}
ONLY_IN_REQUEST = {
    "family": "resolved by the server",
    "asked_name": "resolved by the server",
    "asked": "all fields as they were sent",
    "options": "all fields of the body that are not listed",
}
NOT_ON_COMMAND_LINE = {
    "peft_model_config": "there is --lora-modules",
    "replica_config": "there are --replica and --gpu-idx",
    "keep_alive": "there is --ttl",
    "applied_from": "`xinference apply` sets it",
}
ONLY_ON_COMMAND_LINE = {
    "lora_modules": "an option of the engine",
    "quantization_config": "an option of the engine",
    "context_length": "an option of each engine",
    "name": "model_name as an argument",
    "tune": "an option that no engine gets",
    **dict.fromkeys(("dry_run", "no_wait", "as_json"), "how the command behaves"),
    **dict.fromkeys(("endpoint", "api_key"), "which server it asks"),
}


def request_fields() -> dict[str, Any]:
    fields = msgspec.structs.fields(LaunchRequest)
    return {each.name: MISSING if each.required else _default(each) for each in fields}


def _default(field: Any) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def body_fields(body: Any = LaunchBody) -> dict[str, Any]:
    fields = body.model_fields.items()
    return {name: MISSING if field.is_required() else field.default for name, field in fields}


def client_arguments() -> dict[str, Any]:
    parameters = inspect.signature(launch_requests.launch_model).parameters.values()
    return {
        each.name: MISSING if each.default is each.empty else each.default
        for each in parameters
        if each.kind is not each.VAR_KEYWORD and each.name != "wait_ready"
    }


def command_line_options() -> dict[str, Any]:
    """The options of `launch` with their values if only the model's name is given."""
    return launch.make_context("launch", ["-n", "m"]).params


def test_the_request_has_every_field_of_the_body() -> None:
    assert body_fields().keys() - request_fields().keys() == ONLY_IN_BODY.keys()
    assert request_fields().keys() - body_fields().keys() == ONLY_IN_REQUEST.keys()


def test_the_client_has_every_field_of_the_body() -> None:
    assert client_arguments().keys() ^ body_fields().keys() == set()


def test_the_command_line_has_every_field_of_the_body() -> None:
    options = command_line_options().keys()
    assert body_fields().keys() - options == NOT_ON_COMMAND_LINE.keys()
    assert options - body_fields().keys() == ONLY_ON_COMMAND_LINE.keys()


@pytest.mark.parametrize("place", [client_arguments, request_fields])
def test_a_field_has_the_same_default_everywhere(place: Any) -> None:
    body = body_fields()
    different = {
        name: (default, body[name])
        for name, default in place().items()
        if name in body and default != body[name] and not (default in ({}, ()) and body[name] is None)
    }
    assert different == {}


def test_an_option_that_is_not_given_has_the_default_of_the_body_or_none() -> None:
    values = command_line_options()
    different = {
        name: values[name] for name, default in body_fields().items() if values.get(name) not in (None, default)
    }
    assert different == {"model_name": "m"}


def test_a_download_has_the_fields_of_a_launch_that_choose_a_version() -> None:
    launch_fields = body_fields()
    assert {name: launch_fields.get(name) for name in DownloadBody.model_fields} == body_fields(DownloadBody)


CHANGED: dict[str, Any] = {
    "model_name": "n", "model_uid": "u", "model_type": "rerank", "model_engine": "vLLM", "model_size_in_billions": 7,
    "model_format": "pytorch", "quantization": "q", "model_path": "/p", "download_hub": "local", "n_gpu": 2,
    "gpu_idx": [0, 1], "replica": 2, "worker_ip": "a,b", "n_worker": 3, "allow_plain_gang": True,
    "labels": {"gpu": "h100"},
    "request_limits": 3, "max_output_tokens": 9,
    "max_request_seconds": 1.5, "enable_thinking": True, "envs": {"A": "1"},
    "aliases": ["a", "b"], "applied_from": "box:/models.toml",
    "on_demand": True, "ttl": 5.0, "pin": True, "priority": 4,
}  # fmt: skip


def test_every_field_reaches_the_request_through_client_and_body() -> None:
    assert CHANGED.keys() == request_fields().keys() - ONLY_IN_REQUEST.keys()
    body = launch_requests.launch_model(**CHANGED, n_ctx=512).body
    assert body == CHANGED | {"n_ctx": 512}
    request = msgspec.to_builtins(LaunchBody.model_validate(body).request(is_cluster=True))
    assert {name: _listed(request[name]) for name in CHANGED} == CHANGED
    assert request["options"] == {"n_ctx": 512}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_the_documentation_names_every_field() -> None:
    text = (DOCS / "rest.md").read_text() + (DOCS / "on-demand.md").read_text()
    assert [name for name in body_fields() if f"`{name}`" not in text] == []
