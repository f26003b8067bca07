"""What each method of either client sends, and what it makes of the answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, events
from tests.client.either import Either
from tests.support.cases import in_one_test
from xinference.client import AsyncClient, Client
from xinference.client.calls import Call
from xinference.client.client import Methods

SAME = object()
#: What tests/api/test_client.py asks of the server itself.
UNSUPPORTED = {
    "relaunch_api",
    "get_api_relaunch",
    "list_api_relaunches",
    "relaunch_supervisor",
    "get_supervisor_relaunch",
    "list_supervisor_relaunches",
    "relaunch_worker",
    "get_worker_relaunch",
    "list_worker_relaunches",
}
READY = {"event_type": "READY"}
WATCHED = Answer(b'id: 1-2\nevent: end\ndata: {"node": "local"}\n\n', content_type="text/event-stream")
END = [{"id": "1-2", "event": "end", "data": {"node": "local"}}]
ITEM = {"id": "m", "object": "model", "model_type": "LLM"}
REGISTRATION = {"model": "{}", "persist": True, "worker_ip": None}
USER = {"username": "u", "password": "p"}
REPLICA = {"replica_config": {"x": 1}, "replica": 2, "n_gpu": 1}


@dataclass
class Row:
    """A method with its arguments, the request that it sends, the server's answer, and what it makes of it."""

    method: str
    arguments: dict[str, Any]
    line: str
    body: Any
    answer: Any
    result: Any

    def __str__(self) -> str:
        return f"{self.method} {self.line}"


def row(method: str, line: str, answer: Any, /, result: Any = SAME, body: Any = None, **arguments: Any) -> Row:
    return Row(method, arguments, line, body, answer, answer if result is SAME else result)


MODEL = "/v1/models/m"
ALL = "/v1/model_registrations/LLM"
CACHE = "/v1/cache/models"
REMAINING = {"remaining_replicas": 2}
NO_CHANGE = dict.fromkeys(("source", "sha256", "catalog", "model_type", "model_name"))
TABLE = [
    row("health", "GET /health", {"status": "ok"}),
    row("auth", "GET /v1/cluster/auth", {"auth": False}),
    row("status", "GET /status", {"uptime": 1}),
    row("request_token", "POST /token", {"access_token": "t"}, "t", USER, **USER),
    row("list_models", "GET /v1/models", {"object": "list", "data": [ITEM]}, {"m": ITEM}),
    row("list_instances", "GET /v1/models/instances", [{"model_uid": "m"}]),
    row("get_instance_info", "GET /v1/models/instances", []),
    row("get_instance_info", "GET /v1/models/instances?model_name=n&model_uid=m", [], model_name="n", model_uid="m"),
    row("describe_model", "GET /v1/models/a%2Fb%20c", {"a": 1}, model_uid="a/b c"),
    row("terminate_model", f"DELETE {MODEL}", None, model_uid="m"),
    row("set_aliases", f"PUT {MODEL}/aliases", {"id": "m"}, body={"aliases": ["a"]}, model_uid="m", aliases=("a",)),
    row("set_terms", f"PATCH {MODEL}", {"id": "m"}, body={"pin": False, "ttl": 0}, model_uid="m", pin=False, ttl=0),
    row("unload_model", f"POST {MODEL}/unload", {"id": "m"}, model_uid="m"),
    row("load_model", f"POST {MODEL}/load?wait_ready=true", {"id": "m"}, model_uid="m"),
    row("restart_model", f"POST {MODEL}/restart?wait_ready=false", {"id": "m"}, model_uid="m", wait_ready=False),
    row(
        *("reload_model", f"POST {MODEL}/reload", {"status": "reloading"}),
        body={"model_config": {"n_ctx": 9}, "drain_timeout": 5},
        model_uid="m",
        model_config={"n_ctx": 9},
        drain_timeout=5,
    ),
    row("get_model_reload_status", f"GET {MODEL}/reload", {"status": "idle"}, model_uid="m"),
    row("get_model_reload_config", f"GET {MODEL}/reload/config", {"parameters": {}}, model_uid="m"),
    row("launch_history", "GET /v1/launch_history", []),
    row("launch_history", "GET /v1/launch_history?model_name=n&failed=true", [], model_name="n", failed=True),
    row("list_model_replicas", f"GET {MODEL}/replicas", [{"replica_id": 0}], model_uid="m"),
    row("add_model_replica", f"POST {MODEL}/replicas", {"replica_id": 1}, body={}, model_uid="m"),
    row("add_model_replica", f"POST {MODEL}/replicas", {}, body=REPLICA, model_uid="m", **REPLICA),
    row("terminate_model_replica", f"DELETE {MODEL}/replicas/1", REMAINING, 2, model_uid="m", replica_id=1),
    row("get_launch_model_progress", f"GET {MODEL}/progress", {"progress": 0.5}, model_uid="m"),
    row("cancel_launch_model", f"POST {MODEL}/cancel", None, model_uid="m"),
    row("follow_events", f"GET {MODEL}/events?follow=true", lambda: events(READY), [READY], model_uid="m"),
    row("logs", f"GET {MODEL}/logs?lines=5&follow=false", lambda: Answer("one\n"), ["one\n"], model_uid="m", lines=5),
    row(
        *("logs", f"GET {MODEL}/logs?lines=40&follow=true&replica=1", lambda: Answer("one\n"), ["one\n"]),
        model_uid="m",
        follow=True,
        replica=1,
    ),
    row(
        *("log_from", f"GET {MODEL}/logs?offset=a-4&replica=0"),
        lambda: Answer("é\n", headers={"X-Log-Offset": "a-7"}),
        {"text": "é\n", "offset": "a-7"},
        model_uid="m",
        offset="a-4",
        replica=0,
    ),
    row("server_logs", "GET /v1/logs?lines=5&follow=false", lambda: Answer("one\n"), ["one\n"], lines=5),
    row("engine_figures", f"GET {MODEL}/engine", [{"running": 1}], model_uid="m"),
    row(
        *("abort_request", f"POST {MODEL}/requests/r/abort", {"msg": "DONE"}),
        body={"block_duration": 30},
        model_uid="m",
        request_id="r",
    ),
    row("query_engine_by_model_name", "GET /v1/engines/LLM/n", {"vLLM": []}, model_name="n"),
    row(
        *("query_engine_by_model_name", "GET /v1/engines/embedding/n?enable_virtual_env=true", {}),
        model_name="n",
        model_type="embedding",
        enable_virtual_env=True,
    ),
    row("engine_rows", "GET /v1/engines/n?detailed=true", [], model_name="n"),
    row("vllm_models", "GET /v1/models/vllm-supported", {"chat": []}),
    row(
        *("register_model", f"POST {ALL}", None, None, REGISTRATION),
        model_type="LLM",
        model="{}",
        persist=True,
    ),
    row("unregister_model", f"DELETE {ALL}/n", None, model_type="LLM", model_name="n"),
    row("list_model_registrations", f"GET {ALL}?detailed=false", [ITEM], model_type="LLM"),
    row("list_model_registrations", f"GET {ALL}?detailed=true", [], model_type="LLM", detailed=True),
    row("list_model_registrations", f"GET {ALL}?detailed=false&summary=true", [], summary=True),
    row("list_fits", "GET /v1/fits?model_type=LLM&part=n", [ITEM], model_type="LLM", part="n"),
    row("list_fits", "GET /v1/fits", []),
    row("list_engine_options", "GET /v1/engine_options/llama.cpp", ITEM, engine="llama.cpp"),
    row("list_catalogs", "GET /v1/catalog", {"catalogs": []}),
    row("update_catalog", "POST /v1/catalog/update", {"added": []}, body={**NO_CHANGE, "source": "s"}, source="s"),
    row("compare_catalog", "POST /v1/catalog/diff", {"added": []}, body={**NO_CHANGE, "catalog": "{}"}, catalog="{}"),
    row("compare_catalog", "GET /v1/catalog/diff", {"added": []}),
    row("rollback_catalog", "POST /v1/catalog/rollback", {"added": []}),
    row(
        *("update_model_type", "POST /v1/models/update_type", {"added": []}),
        body={"model_type": "LLM", "source": "s", "sha256": None},
        model_type="LLM",
        source="s",
    ),
    row(
        *("update_model_spec", "POST /v1/models/update_spec", {"added": []}),
        body={"model_type": "LLM", "model_name": "n", "source": "s", "sha256": None},
        model_type="LLM",
        model_name="n",
        source="s",
    ),
    row("get_model_registration", f"GET {ALL}/n", {}, model_type="LLM", model_name="n"),
    row("list_cached_models", f"GET {CACHE}", {"list": []}, []),
    row("list_cached_models", f"GET {CACHE}?model_name=n", {"list": [ITEM]}, [ITEM], model_name="n"),
    row("list_cached_models", f"GET {CACHE}?worker_ip=w", {"list": [ITEM]}, [ITEM], worker_ip="w"),
    row("list_deletable_models", f"GET {CACHE}/files?model_version=v", {"paths": []}, model_version="v"),
    row("confirm_and_remove_model", f"DELETE {CACHE}?model_version=v", {"result": True}, True, model_version="v"),
    row("remove_cached_model", f"DELETE {CACHE}?model_version=v", {"freed_bytes": 1}, model_version="v"),
    row(
        *("download_model", f"POST {CACHE}", {"model_version": "v"}, "v"),
        body={"model_name": "n", "quantization": "q"},
        model_name="n",
        quantization="q",
        model_format=None,
    ),
    row("cancel_download", f"DELETE {CACHE}/v/download", None, model_version="v"),
    row("follow_download", f"GET {CACHE}/v/events?follow=true", lambda: events(READY), [READY], model_version="v"),
    row("list_keys", "GET /v1/keys", [{"id": "k"}]),
    row(
        *("create_key", "POST /v1/keys", {"id": "k", "key": "sk"}),
        body={"name": "a", "scopes": ["use"], "models": ["m"], "expires_in": 60},
        name="a",
        models=("m",),
        expires_in=60,
    ),
    row(
        *("update_key", "PATCH /v1/keys/a", {"id": "k"}),
        body={"models": ["m"], "expires_in": None},
        key="a",
        models=("m",),
        expires_in=None,
    ),
    row("revoke_key", "DELETE /v1/keys/a%20b", {"id": "k"}, key="a b"),
    row("forget_keys", "DELETE /v1/keys", {"removed": 2}),
    row("create_login_code", "POST /v1/sessions/codes", {"code": "c", "expires_in": 60.0}, body={}),
    row("get_progress", "GET /v1/requests/r/progress", {"progress": 0.0}, request_id="r"),
    row("list_requests", "GET /v1/requests?limit=100", []),
    row("list_requests", "GET /v1/requests?model=m&status=404&limit=5", [], model="m", status=404, limit=5),
    row("list_active_requests", "GET /v1/requests/active?model=m", [{"id": "p-1"}], model="m"),
    row("abort_active_request", "POST /v1/requests/p-1/abort", {"id": "p-1"}, request_id="p-1"),
    row("cluster_nodes", "GET /v1/cluster/nodes", [{"node_id": "n1"}]),
    row("ray_cluster", "GET /v1/cluster/ray", {"address": "auto"}),
    row("drain_node", "POST /v1/cluster/nodes/a%2Fb/drain", {"node_id": "n1"}, node="a/b"),
    row("undrain_node", "POST /v1/cluster/nodes/n1/undrain", {"node_id": "n1"}, node="n1"),
    row("upgrade_node", "POST /v1/cluster/nodes/n1/upgrade", {"node_id": "n1"}, node="n1"),
    row("remove_node", "DELETE /v1/cluster/nodes/n1", {"node_id": "n1"}, node="n1"),
    row("create_join_token", "POST /v1/cluster/tokens", {"token": "xt"}, body={"hours": 1.0, "uses": None}, hours=1.0,
        uses=None),
    row("list_join_tokens", "GET /v1/cluster/tokens", [{"token_id": "t"}]),
    row("revoke_join_token", "DELETE /v1/cluster/tokens/t", {"token_id": "t"}, token_id="t"),
    row("usage", "GET /v1/usage?by=key%2Cday&from=100", [{"requests": 1}], by="key,day", begin=100.0),
    row("watch", "GET /v1/watch?topics=models%2Cstats", lambda: WATCHED, END, topics=["models", "stats"]),
    row("devices", "GET /v1/devices", {"node": "local"}),
    row("stats", "GET /v1/stats?model=m&step=30&since=100", {"t": []}, model="m", step=30, since=100),
    row("get_autostart_config", "GET /v1/autostart/models", {"models": []}),
    row("get_autostart_model_summary", "GET /v1/autostart/models/summary", {"models": []}),
    row("upsert_autostart_model", "POST /v1/autostart/models", {"models": []}, body={"a": 1}, entry={"a": 1}),
    row("remove_autostart_model", "DELETE /v1/autostart/models/a%2Fb", {"models": []}, model_uid="a/b"),
    row("get_workers_info", "GET /v1/workers", [{"work-ip": "x"}]),
    row("get_supervisor_info", "GET /v1/supervisor", {"supervisor_ip": "x"}),
    row("abort_cluster", "DELETE /v1/clusters", {"result": True}),
]  # fmt: skip


@in_one_test("row", TABLE, ids=str)
def test_a_method_sends_what_the_interface_says_and_reads_the_answer(canned: Canned, client: Either, row: Row) -> None:
    method, _, target = row.line.partition(" ")
    path, _, query = target.partition("?")
    canned.answers[method, path] = row.answer() if callable(row.answer) else Answer(row.answer)
    assert client(row.method, **row.arguments) == row.result
    asked = canned.asked.pop()
    assert (asked.method, asked.path, asked.query, asked.body) == (method, path, query, row.body) and not canned.asked


def test_no_method_is_left_out() -> None:
    methods = {name for name, value in vars(Methods).items() if isinstance(value, Call)}
    assert methods - {"launch_model", "begin_launch", "plan_launch"} - UNSUPPORTED == {row.method for row in TABLE}


def launched(canned: Canned, client: Either, *args: Any, **kwargs: Any) -> Any:
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "m"})
    assert client("launch_model", *args, **kwargs) == "m"
    return canned.asked[-1]


def test_a_launch_sends_what_was_given_and_leaves_the_rest_out(canned: Canned, client: Either) -> None:
    asked = launched(canned, client, "llama", model_format="ggufv2", n_gpu=None, n_ctx=512, self="x")
    assert asked.query == "wait_ready=true"
    assert asked.body == {
        "model_name": "llama",
        "model_type": "LLM",
        "model_format": "ggufv2",
        "replica": 1,
        "n_gpu": None,
        "n_ctx": 512,
        "self": "x",
    }


def test_a_launch_that_is_only_begun_tells_what_was_found(canned: Canned, client: Either) -> None:
    begun = {"model_uid": "m", "found": "running"}
    canned.answers["POST", "/v1/models"] = Answer(begun)
    assert client("begin_launch", "llama", new=True) == begun
    (asked,) = canned.asked
    assert asked.query == "wait_ready=false" and asked.body["new"] is True


def test_every_argument_of_a_launch_has_its_place(canned: Canned, client: Either) -> None:
    given = {
        "model_name": "llama",
        "model_type": "LLM",
        "model_engine": "vLLM",
        "model_uid": "m",
        "model_size_in_billions": 7,
        "model_format": "pytorch",
        "quantization": "none",
        "replica": 2,
        "n_worker": 2,
        "n_gpu": 1,
        "peft_model_config": {"lora_list": []},
        "request_limits": 0,
        "worker_ip": "w",
        "gpu_idx": [0, 1],
        "replica_config": [{"devices": []}],
        "model_path": "/p",
        "enable_thinking": False,
        "enable_virtual_env": False,
        "virtual_env_packages": ["a"],
        "envs": {"A": "1"},
        "virtual_env_find_links": ["/l"],
    }
    asked = launched(canned, client, *given.values(), wait_ready=False, download_hub="local")
    assert asked.body == given | {"download_hub": "local"}
    assert asked.query == "wait_ready=false"
    assert list(inspect.signature(Client.launch_model).parameters)[: len(given)] == list(given)


@pytest.mark.parametrize(("given", "sent"), [(7.0, 7), (1.8, "1.8"), ("1_8", "1_8"), (7, 7)])
def test_a_size_that_is_a_float_is_named_as_the_registry_does(
    canned: Canned, client: Either, given: Any, sent: Any
) -> None:
    assert launched(canned, client, "llama", model_size_in_billions=given).body["model_size_in_billions"] == sent


def test_a_plan_is_asked_for_as_a_dry_run(canned: Canned, client: Either) -> None:
    canned.answers["POST", "/v1/models"] = Answer({"version": "v"})
    assert client("plan_launch", "llama", quantization="Q4_0") == {"version": "v"}
    assert canned.asked[0].query == "dry_run=true"


def test_a_login_sends_its_token_from_then_on(canned: Canned, client: Either) -> None:
    canned.answers["POST", "/token"] = Answer({"access_token": "t", "token_type": "bearer"})
    client("login", "u", "p")
    client("health")
    assert canned.asked[0].body == USER
    assert canned.asked[1].headers["authorization"] == "Bearer t"


def test_the_key_is_sent_as_a_bearer(canned: Canned, connect: Callable[..., Either]) -> None:
    connect(canned.url, "sk-1")("health")
    assert canned.asked[0].headers["authorization"] == "Bearer sk-1"


def test_methods_say_what_they_take() -> None:
    assert str(inspect.signature(Client.describe_model)) == "(model_uid: 'str') -> 'Request[Json]'"
    assert inspect.getdoc(Client.describe_model) == "The description of a deployment."
    asynchronous = AsyncClient("http://127.0.0.1:1").describe_model
    assert inspect.iscoroutinefunction(asynchronous)
    assert list(inspect.signature(asynchronous).parameters) == ["model_uid"]


def test_a_method_can_be_called_by_its_class(canned: Canned) -> None:
    with Client(canned.url, check=False) as client:
        assert Client.health(client) == {"status": "ok"}
