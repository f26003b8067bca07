from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import tracemalloc
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import CHAT, HandMadeRouter, Said, call, gateway_of, listening, route, target
from tests.support.cases import in_one_test
from xinference.gateway.app import Gateway
from xinference.gateway.auth.authentication import Views
from xinference.gateway.routes import DATA_PATHS
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.keys.table import KeyTable, table_of
from xinference.routing.table import RoutingTable, with_other_names

ALL = "all models"
ONE = "one model"
MANAGER = "manages only"
EXPIRED = "expired"
KEYS = {
    ALL: Key("k1", "all", digest(ALL.encode()), frozenset({"use"})),
    ONE: Key("k2", "one", digest(ONE.encode()), frozenset({"use"}), frozenset({"m"})),
    MANAGER: Key("k3", "manager", digest(MANAGER.encode()), frozenset({"manage"})),
    EXPIRED: Key("k4", "old", digest(EXPIRED.encode()), frozenset({"use"}), expires=1.0),
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": CHAT | {"max_tokens": 1},
    "/v1/messages/count_tokens": CHAT,
    "/v1/rerank": {"query": "x", "documents": ["y"]},
    "/rerank": {"query": "x", "documents": ["y"]},
    "/v1/reranking": {"query": "x", "documents": ["y"]},
    "/v2/rerank": {"query": "x", "documents": ["y"]},
    "/v1/score": {"text_1": "x", "text_2": "y"},
    "/tokenize": {"prompt": "x"},
    "/v1/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [1]},
    "/v1/detokenize": {"tokens": [1]},
    "/v1/convert_ids_to_tokens": {"input": [1]},
    "/apply-template": CHAT,
}


@dataclass
class CountedKeys:
    """Keys that count what is asked of them."""

    given: KeyTable
    looks: int = 0
    uses: list[tuple[str, float]] = field(default_factory=list)

    @property
    def table(self) -> KeyTable:
        self.looks += 1
        return self.given

    def used(self, key: Key, now: float) -> None:
        self.uses.append((key.key_id, now))


def keys_of(*keys: Key, required: bool = True) -> CountedKeys:
    return CountedKeys(table_of(keys or KEYS.values(), required=required))


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def body_for(path: str, model: str) -> bytes:
    return json.dumps(BODIES.get(path.removeprefix("/anthropic"), {}) | {"model": model}).encode()


def busy_router() -> HandMadeRouter:
    """``m`` with its adapter ``m-lora``, and ``other`` with ``other-lora``; none is ready, so nothing is forwarded."""
    deployments = {
        uid: route(uid=uid, stage="fetch", paths=frozenset(DATA_PATHS), adapters=(f"{uid}-lora",))
        for uid in ("m", "other")
    }
    routes = with_other_names(deployments)
    router = HandMadeRouter()
    data = [{"id": name, "parent": each.parent} if each.parent else {"id": name} for name, each in routes.items()]
    router.current = RoutingTable(routes, json.dumps({"object": "list", "data": data}).encode())
    return router


async def ask(gateway: Gateway, path: str, model: str, secret: str) -> Said:
    headers = bearer(secret) | {"anthropic-version": "2023-06-01"}
    return await call(gateway, path, body_for(path, model), headers=headers)


@in_one_test("path", sorted(DATA_PATHS))
async def test_no_data_path_answers_without_a_key_that_counts(path: str) -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        for secret in ("", "wrong", EXPIRED, MANAGER):
            said = await ask(gateway, path, "m", secret)
            error = said.json["error"]
            assert said.status == (403 if secret == MANAGER else 401)
            if DATA_PATHS[path].anthropic:
                assert error["type"] == ("permission_error" if secret == MANAGER else "authentication_error")
            else:
                assert error["code"] == ("permission_denied" if secret == MANAGER else "invalid_api_key")
            assert said.headers.get(b"www-authenticate") == (None if secret == MANAGER else b"Bearer")


@in_one_test("path", sorted(DATA_PATHS))
async def test_a_key_of_one_model_reaches_it_and_its_adapter_and_no_other(path: str) -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        for model, status in (("m", 503), ("m-lora", 503), ("other", 403), ("other-lora", 403), ("nothing", 403)):
            said = await ask(gateway, path, model, ONE)
            assert said.status == status, model
            if status == 403:
                error = said.json["error"]
                assert error["type"] == ("permission_error" if DATA_PATHS[path].anthropic else "invalid_request_error")


@in_one_test("path", sorted(DATA_PATHS))
async def test_a_key_of_all_models_reaches_all(path: str) -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        statuses = [(await ask(gateway, path, m, ALL)).status for m in ("m", "m-lora", "other", "other-lora")]
    assert statuses == [503] * 4


async def test_a_key_of_an_adapter_does_not_reach_the_model_under_it() -> None:
    key = replace(KEYS[ONE], models=frozenset({"m-lora"}))
    async with gateway_of(busy_router(), keys=keys_of(key)) as gateway:
        assert (await ask(gateway, "/v1/chat/completions", "m-lora", ONE)).status == 503
        assert (await ask(gateway, "/v1/chat/completions", "m", ONE)).status == 403


async def test_a_key_of_a_model_reaches_its_aliases_and_no_alias_of_another() -> None:
    router = busy_router()
    deployments = {uid: replace(router.current.routes[uid], aliases=(f"{uid}-alias",)) for uid in ("m", "other")}
    router.current = RoutingTable(with_other_names(deployments), router.current.listing)
    alias_key = replace(KEYS[ALL], key_id="alias", models=frozenset({"m-alias"}))
    async with gateway_of(router, keys=keys_of(KEYS[ONE], alias_key)) as gateway:
        for secret, expected in (
            (ONE, {"m-alias": 503, "other-alias": 403}),
            (ALL, {"m-alias": 503, "m": 403, "m-lora": 403, "other": 403, "other-alias": 403}),
        ):
            found = {model: (await ask(gateway, "/v1/chat/completions", model, secret)).status for model in expected}
            assert found == expected
        headers = bearer(ONE)
        read = {
            name: (await call(gateway, f"/v1/models/{name}", b"", method="GET", headers=headers)).status
            for name in ("m-alias", "other-alias")
        }
    assert read == {"m-alias": 200, "other-alias": 403}


async def test_a_monitor_reads_the_metrics_and_the_state_of_the_server_and_nothing_else() -> None:
    monitor = replace(KEYS[ALL], scopes=frozenset({"monitor"}))
    async with gateway_of(busy_router(), keys=keys_of(monitor)) as gateway:
        reads = {
            path: (await call(gateway, path, method=method, headers=bearer(ALL))).status
            for method, path in (
                ("GET", "/metrics"), ("GET", "/status"), ("GET", "/v1/workers"), ("GET", "/health"),
                ("GET", "/v1/models"), ("GET", "/v1/models/m"), ("POST", "/v1/models/m/requests/r/abort"),
                ("POST", "/v1/models"), ("GET", "/v1/keys"), ("DELETE", "/v1/clusters"),
            )
        }  # fmt: skip
        assert {path for path, status in reads.items() if status == 200} == {
            "/metrics", "/status", "/v1/workers", "/health",
        }  # fmt: skip
        assert set(reads.values()) == {200, 403}
        assert (await ask(gateway, "/v1/chat/completions", "m", ALL)).status == 403


async def test_the_view_of_a_changed_key_is_a_new_one() -> None:
    views, table = Views(), busy_router().current
    key = replace(KEYS[ONE], models=frozenset({"m"}))
    assert set(views.for_use(key, table).routes) == {"m", "m-lora"}
    assert set(views.for_use(replace(key, models=frozenset({"other"})), table).routes) == {"other", "other-lora"}


async def test_no_field_leads_a_key_of_an_adapter_to_the_model_under_it() -> None:
    key = replace(KEYS[ONE], models=frozenset({"m-lora"}))
    body = json.dumps(CHAT | {"model": "m-lora", "lora_name": "m"}).encode()
    async with gateway_of(busy_router(), keys=keys_of(KEYS[ALL], key)) as gateway:
        said = await call(gateway, "/v1/chat/completions", body, headers=bearer(ONE))
        others = await call(gateway, "/v1/chat/completions", body, headers=bearer(ALL))
    assert (said.status, said.json["error"]["code"]) == (400, "adapter_not_found")
    assert others.status == 503


async def test_a_body_that_names_two_models_is_judged_by_the_one_that_engines_read() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        body = body_for("/v1/chat/completions", "m")[:-1] + b',"model":"other"}'
        assert (await call(gateway, "/v1/chat/completions", body, headers=bearer(ONE))).status == 403


async def test_an_allowed_model_that_is_not_there_is_404_without_the_names_of_others() -> None:
    key = replace(KEYS[ONE], models=frozenset({"m", "othr"}))
    async with gateway_of(busy_router(), keys=keys_of(key)) as gateway:
        said = await ask(gateway, "/v1/chat/completions", "othr", ONE)
    assert said.status == 404
    assert "other" not in said.json["error"]["message"]
    assert "m-lora" in said.json["error"]["message"]


async def test_the_listing_has_the_keys_own_models_only() -> None:
    router = busy_router()
    async with gateway_of(router, keys=keys_of()) as gateway:
        ids = {
            secret: [
                entry["id"]
                for entry in (await call(gateway, "/v1/models", method="GET", headers=bearer(secret))).json["data"]
            ]
            for secret in (ALL, ONE, MANAGER)
        }
    assert ids == {
        ALL: ["m", "other", "m-lora", "other-lora"],
        ONE: ["m", "m-lora"],
        MANAGER: ["m", "other", "m-lora", "other-lora"],
    }


async def test_anthropics_listing_has_the_keys_own_models_only() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        path, headers = "/anthropic/v1/models", bearer(ONE)
        listed = (await call(gateway, path, method="GET", headers=headers)).json["data"]
        assert [entry["id"] for entry in listed] == ["m", "m-lora"]
        assert (await call(gateway, f"{path}/m", method="GET", headers=headers)).status == 200
        assert (await call(gateway, f"{path}/other", method="GET", headers=headers)).status == 403


async def test_a_new_model_is_seen_at_once() -> None:
    router = busy_router()
    key = replace(KEYS[ONE], models=frozenset({"m", "new"}))
    async with gateway_of(router, keys=keys_of(key)) as gateway:
        assert (await ask(gateway, "/v1/completions", "new", ONE)).status == 404
        router.publish(route(uid="new", stage="fetch"))
        assert (await ask(gateway, "/v1/completions", "new", ONE)).status == 503
        assert (await ask(gateway, "/v1/completions", "m", ONE)).status == 404


async def test_a_key_for_use_reads_but_does_not_manage() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        for method, path in (("GET", "/v1/models/other"), ("GET", "/status"), ("GET", "/v1/engines/x")):
            assert (await call(gateway, path, method=method, headers=bearer(ALL))).status == 200
        for method, path in (("POST", "/v1/models"), ("DELETE", "/v1/models/m"), ("GET", "/v1/keys"), ("GET", "/x")):
            said = await call(gateway, path, method=method, headers=bearer(ALL))
            assert said.status == 403
            assert said.json["detail"].startswith("Not enough permissions")


async def test_a_key_of_one_model_reads_the_state_of_no_other() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        seen = {
            path: (await call(gateway, path, method="GET", headers=bearer(ONE))).status
            for path in ("/v1/models/m", "/v1/models/m-lora/events", "/v1/models/other", "/v1/models/x", "/status")
        }
    assert seen == {
        "/v1/models/m": 200,
        "/v1/models/m-lora/events": 200,
        "/v1/models/other": 403,
        "/v1/models/x": 403,
        "/status": 403,
    }


async def test_management_learns_whose_request_it_is() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["xinference.key"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with gateway_of(busy_router(), app, keys=keys_of()) as gateway:
        await call(gateway, "/v1/models", headers=bearer(MANAGER))
        await call(gateway, "/token")
    assert seen == [KEYS[MANAGER], None]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ALL}"},
        {"authorization": f"bearer   {ALL} "},
        {"x-api-key": ALL},
        {"api_key": ALL},
        {"authorization": "Basic dXNlcg==", "x-api-key": ALL},
    ],
)
async def test_a_key_is_taken_from_the_headers_that_clients_use(headers: dict[str, str]) -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        assert (await call(gateway, "/v1/models", method="GET", headers=headers)).status == 200


async def test_a_management_refusal_has_detail_and_the_openai_sdks_path_has_error_too() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        plain = await call(gateway, "/status", method="GET")
        both = await call(gateway, "/v1/models", method="GET")
        anthropic = await call(gateway, "/anthropic/v1/models", method="GET")
    assert plain.json["detail"].startswith("Could not validate credentials")
    assert plain.json["problem"]["code"] == "invalid_api_key"
    assert "xinference keys create" in plain.json["detail"] and "error" not in plain.json
    assert both.json["error"]["code"] == "invalid_api_key" and both.json["detail"] == plain.json["detail"]
    assert anthropic.json["error"]["type"] == "authentication_error"
    assert {said.headers[b"www-authenticate"] for said in (plain, both, anthropic)} == {b"Bearer"}


async def test_an_expired_key_is_told_so_and_others_are_not_told_apart() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        expired, wrong, near = [
            (await ask(gateway, "/v1/completions", "m", s)).json["error"]["message"] for s in (EXPIRED, "w", ALL + "x")
        ]
    assert "expired on 1970-01-01" in expired
    assert wrong == near


async def test_without_keys_any_key_is_let_through() -> None:
    keys = keys_of(required=False)
    async with gateway_of(busy_router(), keys=keys) as gateway:
        assert (await ask(gateway, "/v1/completions", "other", "none")).status == 503
        assert (await call(gateway, "/v1/models")).status == 200
    assert keys.uses == []


@pytest.mark.parametrize(
    "method_and_path", ["POST /v1/models", "DELETE /v1/clusters", "GET /v1/models/m/logs", "GET /x"]
)
async def test_without_keys_manage_is_for_the_servers_own_user(method_and_path: str) -> None:
    method, path = method_and_path.split()
    async with gateway_of(busy_router(), keys=keys_of(required=False)) as gateway:
        own = await call(gateway, path, method=method)
        other = await call(gateway, path, method=method, peer_uid=os.geteuid() + 1)
        unknown = await call(gateway, path, method=method, peer_uid=None)
        wrong = await call(gateway, path, method=method, headers=bearer("wrong"), peer_uid=os.geteuid() + 1)
        keyed = await call(gateway, path, method=method, headers=bearer(MANAGER), peer_uid=None)
        use_only = await call(gateway, path, method=method, headers=bearer(ALL), peer_uid=None)
    assert (own.status, keyed.status) == (200, 200)
    assert own.body == f"management {method} {path}".encode()
    assert (other.status, unknown.status, wrong.status, use_only.status) == (401, 401, 401, 403)
    assert other.json["problem"]["code"] == "invalid_api_key"
    assert other.headers[b"www-authenticate"] == b"Bearer"


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Via", "X-Real-IP"])
async def test_where_everybody_is_allowed_what_a_proxy_sends_is_never_the_owners(name: str) -> None:
    async with gateway_of(busy_router(), keys=keys_of(required=False), allow_unauthenticated=True) as gateway:
        said = await call(gateway, "/v1/keys", method="GET", headers={name.lower(): "127.0.0.1"})
        read = await call(gateway, "/v1/models", method="GET", headers={name.lower(): "127.0.0.1"})
    assert (said.status, read.status) == (401, 200)


async def test_without_keys_another_user_may_use_models_and_read() -> None:
    async with gateway_of(busy_router(), keys=keys_of(required=False)) as gateway:
        asked = await call(gateway, "/v1/chat/completions", json.dumps(CHAT).encode(), peer_uid=None)
        read = [
            (await call(gateway, path, method="GET", peer_uid=None)).status
            for path in ("/health", "/v1/models", "/metrics", "/status", "/v1/models/m/events")
        ]
    assert asked.status == 503  # the model is loading
    assert read == [200] * 5


async def test_beyond_loopback_without_keys_everybody_may_manage() -> None:
    async with gateway_of(busy_router(), keys=keys_of(required=False), host="0.0.0.0") as gateway:
        said = await call(gateway, "/v1/keys", method="GET", peer_uid=None, headers={"via": "1.1 x"})
    assert said.status == 200


async def test_the_system_is_asked_once_a_connection_and_not_for_the_data_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def find(connection: object) -> int:
        asked.append(connection)
        return os.geteuid()

    monkeypatch.setattr("xinference.gateway.http.uvicorn_protocol.find_peer_uid", find)
    async with (
        gateway_of(busy_router(), keys=keys_of(required=False)) as gateway,
        listening(gateway) as (_, _, url),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))

        async def ask_for(method: str, path: str, body: bytes = b"") -> bytes:
            head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            status = await reader.readline()
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if "content-length: " in head:
                await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
            else:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            return status.split()[1]

        for _ in range(3):
            assert await ask_for("POST", "/v1/chat/completions", json.dumps(CHAT).encode()) == b"503"
            assert await ask_for("GET", "/health") == b"200"
        assert asked == []
        for _ in range(3):
            assert await ask_for("GET", "/v1/keys") == b"200"
        assert len(asked) == 1
        writer.close()


async def test_with_keys_the_servers_own_user_needs_one_too() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        assert (await call(gateway, "/v1/keys", method="GET")).status == 401


async def test_the_guard_against_other_origins_stays_with_keys() -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        headers = bearer(ALL) | {"origin": "https://evil.example"}
        assert (await call(gateway, "/v1/models", method="GET", headers=headers)).status == 403


async def test_a_web_socket_needs_a_key_to_manage() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        scope = {"type": "websocket", "path": "/ws", "headers": [(b"authorization", f"Bearer {ALL}".encode())]}
        await gateway(scope, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


@pytest.mark.process
async def test_the_engine_never_sees_the_clients_key() -> None:
    async with start_fake_engine(echo=True) as engine:
        router = HandMadeRouter()
        router.publish(route(target(engine)))
        async with gateway_of(router, keys=keys_of()) as gateway:
            headers = bearer(ALL) | {"x-api-key": ALL, "api_key": ALL}
            said = await call(gateway, "/v1/chat/completions", json.dumps(CHAT).encode(), headers=headers)
    assert said.status == 200
    assert ALL not in said.body.decode()


async def test_a_wrong_key_costs_one_hash_and_one_look_up_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hashes = 0

    def counted(secret: bytes) -> bytes:
        nonlocal hashes
        hashes += 1
        return digest(secret)

    monkeypatch.setattr("xinference.keys.table.digest", counted)
    caplog.set_level(logging.DEBUG)
    keys, router, wrong = keys_of(), busy_router(), 500

    async def try_wrong_keys(gateway: Gateway, batch: int) -> None:
        for number in range(wrong):
            assert (await ask(gateway, "/v1/completions", "m", f"wrong {batch} {number}")).status == 401

    async with gateway_of(router, keys=keys) as gateway:
        await try_wrong_keys(gateway, 1)
        tracemalloc.start()
        await try_wrong_keys(gateway, 2)
        before, _ = tracemalloc.get_traced_memory()
        await try_wrong_keys(gateway, 3)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (hashes, keys.looks, router.looks, keys.uses) == (3 * wrong, 3 * wrong, 0, [])
    assert caplog.records == []
    assert after - before < 10 * wrong, "bytes are kept of each wrong key"


async def test_a_monstrous_key_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xinference.keys.table.digest", lambda _: pytest.fail("hashed"))
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        assert (await ask(gateway, "/v1/completions", "m", "x" * 10_000)).status == 401


async def test_a_use_is_noted_once_a_request() -> None:
    keys, before = keys_of(), time.time()
    async with gateway_of(busy_router(), keys=keys) as gateway:
        await ask(gateway, "/v1/completions", "m", ALL)
    ((key_id, at),) = keys.uses
    assert key_id == "k1" and before <= at <= time.time()
