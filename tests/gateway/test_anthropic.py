from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.auth.test_authentication import KEYS, ONE, bearer, keys_of
from tests.gateway.harness import ANTHROPIC, HandMadeRouter, call, gateway_of, route
from tests.support.cases import in_one_test


async def listing(path: str, **options: Any) -> tuple[int, Any]:
    router = HandMadeRouter()
    router.publish(route(uid="one"), route(uid="vectors", paths=frozenset({"/v1/embeddings"})))
    async with gateway_of(router) as gateway:
        answer = await call(gateway, path, method="GET", **options)
    return answer.status, answer.json


async def test_anthropics_listing_has_the_models_that_answer_messages() -> None:
    status, answer = await listing("/anthropic/v1/models")
    assert status == 200 and [model["id"] for model in answer["data"]] == ["one"]
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("one", "one", False)
    assert answer["data"][0]["type"] == "model"


async def test_one_of_anthropics_models_is_found_or_not_in_anthropics_form() -> None:
    assert (await listing("/anthropic/v1/models/one"))[1]["id"] == "one"
    status, answer = await listing("/anthropic/v1/models/vectors")
    assert status == 404 and answer["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(("given", "named"), [("", "required"), ("newest", "newest")])
async def test_messages_without_a_known_version_are_a_400_that_names_it(given: str, named: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).encode()
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, "/v1/messages", body, headers={"anthropic-version": given})
    assert answer.status == 400 and named in answer.json["error"]["message"]


async def read(path: str, query: str = "", uids: str = "abcde", headers: dict[str, str] = ANTHROPIC) -> Any:
    router = HandMadeRouter()
    router.publish(*(route(uid=uid, context_length=8192) for uid in uids))
    async with gateway_of(router) as gateway:
        return await call(gateway, path, method="GET", headers=headers, query=query)


async def test_the_list_has_the_form_that_the_header_of_a_version_asks_for() -> None:
    assert (await read("/v1/models", headers={})).json["object"] == "list"
    answer = (await read("/v1/models")).json
    assert [model["id"] for model in answer["data"]] == list("abcde")
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("a", "e", False)
    # The fields that `ModelInfo` of Anthropic's package requires, and the limits of the model.
    assert {"type", "id", "display_name", "created_at", "lifecycle"} < answer["data"][0].keys()
    assert answer["data"][0]["max_input_tokens"] == 8192


async def test_one_model_has_the_form_that_the_header_of_a_version_asks_for() -> None:
    assert (await read("/v1/models/a", headers={})).body == b"management GET /v1/models/a"
    assert (await read("/v1/models/a")).json["type"] == "model"
    unknown = await read("/v1/models/claude-x")
    assert unknown.status == 404 and unknown.json["error"]["type"] == "not_found_error"


@in_one_test("path", ["/v1/models/instances", "/v1/models/families", "/v1/models/a/events", "/v1/models/a/logs"])
async def test_the_header_of_a_version_changes_no_path_of_the_management_api(path: str) -> None:
    assert (await read(path)).body == f"management GET {path}".encode()


@in_one_test(
    ("query", "ids", "has_more"),
    [
        ("limit=2", "ab", True),
        ("limit=5", "abcde", False),
        ("limit=2&after_id=b", "cd", True),
        ("limit=2&after_id=c", "de", False),
        ("after_id=e", "", False),
        ("limit=2&before_id=d", "bc", True),
        ("limit=2&before_id=c", "ab", False),
        ("before_id=a", "", False),
        ("beta=true&lifecycle[]=active", "abcde", False),
        ("lifecycle=retired", "", False),
        ("after_id=&before_id=", "abcde", False),
    ],
)
async def test_pages_of_the_list_are_those_of_anthropics_api(query: str, ids: str, has_more: bool) -> None:
    for path in ("/v1/models", "/anthropic/v1/models"):
        answer = (await read(path, query)).json
        assert ["".join(model["id"] for model in answer["data"]), answer["has_more"]] == [ids, has_more]
        assert (answer["first_id"], answer["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


@in_one_test(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("after_id=x", "after_id: there is no model 'x'"),
        ("before_id=x", "before_id: there is no model 'x'"),
        ("after_id=a&before_id=c", "either after_id or before_id"),
    ],
)
async def test_a_wrong_parameter_of_the_list_is_a_400_that_names_it(query: str, named: str) -> None:
    answer = await read("/v1/models", query)
    assert answer.status == 400 and answer.json["error"]["type"] == "invalid_request_error"
    assert named in answer.json["error"]["message"]


async def test_the_list_of_a_key_has_its_own_models_and_a_wrong_key_gets_anthropics_error() -> None:
    router = HandMadeRouter()
    router.publish(route(uid="m"), route(uid="other"))
    async with gateway_of(router, keys=keys_of(replace(KEYS[ONE], models=frozenset({"m"})))) as gateway:
        own = await call(gateway, "/v1/models", method="GET", headers=ANTHROPIC | bearer(ONE))
        other = await call(gateway, "/v1/models/other", method="GET", headers=ANTHROPIC | bearer(ONE))
        wrong = await call(gateway, "/v1/models", method="GET", headers=ANTHROPIC | bearer("wrong"))
    assert [model["id"] for model in own.json["data"]] == ["m"]
    assert (other.status, other.json["error"]["type"]) == (403, "permission_error")
    assert (wrong.status, wrong.json["error"]["type"]) == (401, "authentication_error")


async def test_anthropics_package_reads_all_pages() -> None:
    types = pytest.importorskip("anthropic.types", reason="Anthropic's package is not installed")
    pages, after = [], ""
    while True:
        page = (await read("/v1/models", f"limit=2{after and '&after_id='}{after}")).json
        pages += [types.ModelInfo.model_validate(model).id for model in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert pages == list("abcde")
