"""Requests made from the OpenAPI document, sent to a real server, and what every answer must be.

Run `make fuzz` for many of them; the test suite sends a few of each.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from requests import Response
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from xinference.gateway.routes import DATA_PATHS

#: Requests of each operation; the environment says how many in a long run.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2"))
#: A request that takes longer hangs: no model here is asked for more than a few tokens.
SECONDS = 20.0
#: What would end the run itself: the server, and its being open.
LEFT_OUT = {("DELETE", "/v1/clusters"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys")}
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FEW_TOKENS = {
    "/v1/chat/completions": ("max_tokens", "max_completion_tokens"),
    "/v1/responses": ("max_output_tokens",),
}
#: Names that are there, so that not every request ends at a 404.
KNOWN = {
    "model_name": ("llama-2-chat", "smollm2-instruct", "bge-m3"),
    "model_type": ("LLM", "embedding", "rerank"),
    "model_version": ("smollm2-instruct--0_135B--ggufv2--Q4_1", "llama-2-chat--7B--ggmlv3--q4_0"),
    "replica_id": (0, 1),
}

load_all_checks()


@dataclass(frozen=True)
class Target:
    """A server that requests are sent to."""

    url: str
    models: Sequence[str] = ()
    """The models that it runs."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Statuses:
    """How often each status was answered."""

    seen: Counter[int] = field(default_factory=Counter)
    without_key: Counter[int] = field(default_factory=Counter)
    """To the requests that were sent once more, without the target's headers."""


def operations(target: Target) -> list[Any]:
    """Every operation of the document, but for those that would end the run."""
    document = httpx2.get(f"{target.url}/openapi.json", headers=dict(target.headers), timeout=60)
    return _operations(document.raise_for_status().text)


@functools.cache
def _operations(document: str) -> list[Any]:
    """The operations of a document: servers with the same one share them, as the requests take long to derive."""
    schema = schemathesis.openapi.from_dict(json.loads(document))
    every = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(every) == schema.statistic.operations.total, "the document has an operation that can't be read"
    return [each for each in every if (each.method.upper(), each.path) not in LEFT_OUT]


#: The strategies of each operation, by its id and the kind of requests.
_strategies: dict[tuple[int, schemathesis.GenerationMode], st.SearchStrategy[Any]] = {}


def fuzz(operation: Any, target: Target, *, without_key: bool = False) -> Statuses:
    """Send `EXAMPLES` requests that follow the document and as many that do not.

    `without_key`: the first of each kind is sent without the target's headers, too.

    Raises:
        AssertionError: a 500, an answer that the document does not have, or none within `SECONDS`.
    """
    statuses = Statuses()
    for mode in _modes(operation):
        key = id(operation), mode
        if key not in _strategies:
            _strategies[key] = operation.as_strategy(generation_mode=mode)
        first = without_key

        @seed(7)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=_strategies[key], data=st.data())
        def send(case: Any, data: st.DataObject) -> None:
            nonlocal first
            _settle(case, target.models, data)
            if first:
                first = False
                statuses.without_key[_send(case, target.url, {})] += 1
            statuses.seen[_send(case, target.url, target.headers)] += 1

        send()
    return statuses


def _send(case: Any, url: str, headers: Mapping[str, str]) -> int:
    """Send a request, check its answer, and return the status."""
    response: Response = case.call(url, timeout=SECONDS, headers=dict(headers))
    assert response.status_code != 500, f"{case.as_curl_command()}\n{response.text}"
    case.validate_response(response, checks=CHECKS)
    return response.status_code


def _modes(operation: Any) -> list[schemathesis.GenerationMode]:
    """Requests that follow the document, and such as do not if there are any.

    Nothing breaks the schema of a text in a path. Hypothesis would search for a second before it says so.
    """
    parts = (parameter.definition["schema"] for parameter in operation.path_parameters)
    only_texts = all(part["type"] == "string" and part.keys() <= {"type", "title"} for part in parts)
    if only_texts and not (operation.query or operation.headers or operation.cookies or operation.body):
        return [schemathesis.GenerationMode.POSITIVE]
    return [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


def _settle(case: Any, models: Sequence[str], data: st.DataObject) -> None:
    """Name what is there, half of the time, and ask for nothing that is expensive or has no end."""
    method, path = case.method.upper(), case.path
    for place in (case.path_parameters, case.query):
        for name, values in KNOWN.items():
            if place and name in place and data.draw(st.booleans()):
                place[name] = data.draw(st.sampled_from(values))
    ends = method == "DELETE" or (path.endswith(("/cancel", "/replicas")) and method == "POST")
    if case.path_parameters and "model_uid" in case.path_parameters and models and not ends:
        case.path_parameters["model_uid"] = data.draw(st.sampled_from([*models, case.path_parameters["model_uid"]]))
    if path.endswith("/logs") and case.query:
        case.query.pop("follow", None)  # it goes on for as long as it is listened to
    if path == "/v1/models" and method == "POST":
        case.query = {**(case.query or {}), "dry_run": "true"}
    if path == "/v1/autostart/models" and isinstance(case.body, dict):
        case.body["enabled"] = False  # else it launches a model
    if path in DATA_PATHS and isinstance(case.body, dict):
        _settle_body(case.body, path, models, data)


def _settle_body(body: dict[str, Any], path: str, models: Sequence[str], data: st.DataObject) -> None:
    if models and isinstance(body.get("model"), str):
        body["model"] = data.draw(st.sampled_from([*models, body["model"]]))
    if isinstance(body.get("messages"), list) and data.draw(st.booleans()):
        body["messages"] = [{"role": "user", "content": "Hello"}]  # else hardly any gets to the engine
    for name in FEW_TOKENS.get(path, ("max_tokens",)):
        if not isinstance(body.get(name), str | list | dict):
            body[name] = data.draw(st.integers(min_value=1, max_value=3))
