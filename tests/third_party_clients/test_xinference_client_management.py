"""The public package xinference-client, sync and async: launching, listing, registering, the cache, the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.home import UID, Home
from tests.support.polling import until
from tests.support.ports import free_port
from tests.third_party_clients.asking import CHAT, EMBED, RERANK
from tests.third_party_clients.test_xinference_client import KINDS, client, connected

xinference_client: Any = pytest.importorskip("xinference_client", reason="`make test-clients` installs it")
__all__ = ["client"]

#: What contract.md promises of every LLM's description.
DESCRIPTION = {
    "model_type", "address", "accelerators", "model_name", "model_lang", "model_ability", "model_description",
    "model_format", "model_size_in_billions", "model_family", "quantization", "model_hub", "revision",
    "context_length", "replica",
}  # fmt: skip


@pytest.fixture
def tiny(tiny_gguf: Path) -> dict[str, Any]:
    """A launch of the tiny model under a family that has a chat template."""
    return {
        "model_name": "llama-2-chat",
        "model_engine": "llama.cpp",
        "model_size_in_billions": 7,
        "model_format": "ggufv2",
        "quantization": "Q8_0",
        "model_path": str(tiny_gguf),
        "n_ctx": 300,
    }


def test_running_models_are_listed_by_uid(client: Any) -> None:
    listed = client.list_models()
    assert {CHAT, EMBED, RERANK} <= set(listed)
    assert listed[CHAT]["model_name"] == UID
    assert {listed[uid]["model_type"] for uid in (CHAT, EMBED, RERANK)} == {"LLM", "embedding", "rerank"}


def test_a_description_has_what_users_read(client: Any) -> None:
    described = client.describe_model(CHAT)
    assert set(described) >= DESCRIPTION
    assert described["model_ability"] == ["chat", "tools"]
    assert described["context_length"] > 0 and described["replica"] == 1


def test_describing_an_unknown_uid_fails(client: Any) -> None:
    with pytest.raises(RuntimeError, match="nobody"):
        client.describe_model("nobody")


def test_instances_are_told_with_their_status(client: Any) -> None:
    (instance,) = client.get_instance_info(UID, CHAT)
    assert instance["model_uid"] == CHAT and instance["status"] == "READY"
    assert instance["model_version"] == f"{UID}--0_135B--ggufv2--Q4_1"


def test_a_model_is_launched_asked_and_terminated(client: Any, tiny: dict[str, Any]) -> None:
    uid = client.launch_model(**tiny, model_uid="launched")
    assert uid == "launched" and uid in client.list_models()
    answer = client.get_model(uid).chat([{"role": "user", "content": "Hi"}], generate_config={"max_tokens": 2})
    assert answer["model"] == uid
    client.terminate_model(uid)
    assert uid not in client.list_models()


def test_a_launch_without_a_uid_is_named_after_the_model(client: Any, tiny: dict[str, Any]) -> None:
    uid = client.launch_model(**tiny)
    try:
        assert uid.startswith("llama-2-chat")
    finally:
        client.terminate_model(uid)


def test_a_launch_that_is_not_waited_for_tells_its_progress(client: Any, tiny: dict[str, Any]) -> None:
    uid = client.launch_model(**tiny, model_uid="later", wait_ready=False)
    try:
        progress = client.get_launch_model_progress(uid)
        assert 0 <= progress["progress"] <= 1
        until("it is ready", lambda: uid in client.list_models())
        assert client.get_launch_model_progress(uid)["progress"] == 1
    finally:
        client.terminate_model(uid)


def test_progress_of_an_unknown_uid_is_nothing(client: Any) -> None:
    assert client.get_launch_model_progress("nobody")["progress"] == 0


def test_a_launch_is_cancelled(client: Any, tiny: dict[str, Any]) -> None:
    uid = client.launch_model(**tiny, model_uid="cancelled", wait_ready=False)
    client.cancel_launch_model(uid)
    until("it is gone", lambda: uid not in client.list_models())


def test_cancelling_an_unknown_launch_fails(client: Any) -> None:
    with pytest.raises(RuntimeError, match="nobody"):
        client.cancel_launch_model("nobody")


def test_replicas_are_added_and_taken_away(client: Any, tiny: dict[str, Any]) -> None:
    uid = client.launch_model(**tiny, model_uid="growing")
    try:
        added = client.add_model_replica(uid)
        assert isinstance(added["replica_id"], int)
        assert client.describe_model(uid)["replica"] == 2
        assert client.terminate_model_replica(uid, added["replica_id"]) == 1
    finally:
        client.terminate_model(uid)


def test_launching_an_unknown_name_fails(client: Any) -> None:
    with pytest.raises(RuntimeError, match="no-such-model"):
        client.launch_model("no-such-model", model_engine="llama.cpp")


def test_launching_with_an_unknown_option_names_it(client: Any, tiny: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="n_contexts"):
        client.launch_model(**tiny, n_contexts=5)


def test_launching_without_weights_names_the_path(client: Any, tiny: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        client.launch_model(**{**tiny, "model_path": "/nowhere/at-all.gguf"})


def test_adapters_are_refused_on_gguf(client: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    lora = {"lora_list": [{"lora_name": "one", "local_path": str(tmp_path)}]}
    with pytest.raises(RuntimeError, match="LoRA"):
        client.launch_model(**tiny, peft_model_config=lora)


def test_terminating_an_unknown_uid_fails(client: Any) -> None:
    with pytest.raises(RuntimeError, match="nobody"):
        client.terminate_model("nobody")


@pytest.mark.parametrize(("kind", "name"), [("LLM", UID), ("embedding", "bge-m3"), ("rerank", "bge-reranker-v2-m3")])
def test_registrations_are_listed_by_type(client: Any, kind: str, name: str) -> None:
    listed = client.list_model_registrations(kind)
    assert {"model_name": name, "is_builtin": True}.items() <= next(
        r for r in listed if r["model_name"] == name
    ).items()
    names = [registration["model_name"].lower() for registration in listed]
    assert names == sorted(names)


def test_detailed_registrations_have_their_specs(request: pytest.FixtureRequest, client: Any) -> None:
    if "async" in request.node.name:
        why = "AsyncClient.list_model_registrations of 4.1.0 takes no `detailed`, which its Client does"
        request.applymarker(pytest.mark.xfail(strict=True, raises=TypeError, reason=why))
    listed = client.list_model_registrations("LLM", detailed=True)
    assert listed and all(registration["model_specs"] for registration in listed)


def test_one_registration_is_read(client: Any) -> None:
    family = client.get_model_registration("LLM", "llama-2-chat")
    assert family["model_name"] == "llama-2-chat" and len(family["model_specs"]) >= 15


def test_an_unknown_registration_fails(client: Any) -> None:
    with pytest.raises(RuntimeError, match="no-such-model"):
        client.get_model_registration("LLM", "no-such-model")


def test_a_model_of_ones_own_is_registered_launched_and_unregistered(
    client: Any, tiny: dict[str, Any], tiny_gguf: Path
) -> None:
    family = {
        "version": 2,
        "model_name": "mine",
        "context_length": 300,
        "model_lang": ["en"],
        "model_ability": ["generate"],
        "model_family": "other",
        "model_specs": [
            {
                "model_format": "ggufv2",
                "model_size_in_billions": 1,
                "quantization": "Q8_0",
                "model_id": "nobody/mine",
                "model_file_name_template": tiny_gguf.name,
                "model_uri": tiny_gguf.parent.as_uri(),
            }
        ],
    }
    client.register_model("LLM", json.dumps(family), persist=False)
    try:
        assert {"model_name": "mine", "is_builtin": False}.items() <= next(
            r for r in client.list_model_registrations("LLM") if r["model_name"] == "mine"
        ).items()
        uid = client.launch_model("mine", model_engine="llama.cpp")
        assert client.get_model(uid).generate("Hi", generate_config={"max_tokens": 2})["model"] == uid
        client.terminate_model(uid)
    finally:
        client.unregister_model("LLM", "mine")
    assert all(registration["model_name"] != "mine" for registration in client.list_model_registrations("LLM"))


def test_a_bad_registration_names_the_field(client: Any) -> None:
    with pytest.raises(RuntimeError, match=r"model_specs|model_name"):
        client.register_model("LLM", json.dumps({"version": 2, "context_length": 5}), persist=False)


def test_unregistering_what_is_not_there_fails(client: Any) -> None:
    with pytest.raises(RuntimeError, match="nobody"):
        client.unregister_model("LLM", "nobody")


def test_engines_of_a_model_are_told(client: Any) -> None:
    engines = client.query_engine_by_model_name("llama-2-chat")
    assert {"model_name", "model_format", "model_size_in_billions", "quantizations"} <= set(engines["llama.cpp"][0])


@pytest.mark.parametrize(("kind", "name"), [("embedding", "bge-m3"), ("rerank", "bge-reranker-v2-m3")])
def test_engines_are_told_by_type(client: Any, kind: str, name: str) -> None:
    assert "llama.cpp" in client.query_engine_by_model_name(name, model_type=kind)


def test_engines_of_an_unknown_model_fail(client: Any) -> None:
    with pytest.raises(RuntimeError, match="no-such-model"):
        client.query_engine_by_model_name("no-such-model")


def test_the_cache_is_listed(client: Any) -> None:
    listed = client.list_cached_models(UID)
    listed = listed["list"] if isinstance(listed, dict) else listed
    assert f"{UID}--0_135B--ggufv2--Q4_1" in {entry["model_version"] for entry in listed}


def test_files_to_delete_are_told(client: Any) -> None:
    version = f"{UID}--0_135B--ggufv2--Q4_1"
    told = client.list_deletable_models(version)
    assert told["model_version"] == version and any(path.endswith(".gguf") for path in told["paths"])


def test_removing_what_is_not_cached_fails_or_says_so(client: Any) -> None:
    try:
        assert client.confirm_and_remove_model("llama-2-chat--7B--ggufv2--Q2_K") in (True, False)
    except RuntimeError as error:
        assert "llama-2-chat--7B--ggufv2--Q2_K" in str(error)


def test_aborting_an_unknown_request_says_so(client: Any) -> None:
    assert client.abort_request(CHAT, "no-such-request")["msg"] in ("NOT_FOUND", "NO_OP")


def test_the_cluster_tells_its_machines(client: Any) -> None:
    (worker,) = client.get_workers_info()
    assert worker["work-ip"] and CHAT in str(worker["models"])
    assert client.get_supervisor_info()["supervisor_ip"]


def test_vllms_models_are_told_by_what_they_do(client: Any) -> None:
    assert {"chat", "generate"} <= set(client.vllm_models())


def test_a_login_without_keys_is_nothing(client: Any) -> None:
    assert client.login("someone", "secret") is None
    assert client.list_models()


@pytest.mark.parametrize("kind", ["image", "audio", "video", "flexible", "world"])
def test_there_are_no_registrations_of_types_that_are_not_served(client: Any, kind: str) -> None:
    assert client.list_model_registrations(kind) == []


def test_the_progress_of_any_request_is_nothing(client: Any) -> None:
    assert client.get_progress("no-such-request")["progress"] == 0


def test_every_launch_starts_with_the_server_until_it_is_taken_away(client: Any, tiny: dict[str, Any]) -> None:
    uid = client.launch_model(**tiny, model_uid="started")
    try:
        summary = {"enabled": True, "model_uid": uid}
        assert summary in client.get_autostart_model_summary()["models"]
        entry = next(each for each in client.get_autostart_config()["models"] if each["launch"]["model_uid"] == uid)
        assert entry["state"]["instance_status"] == "READY" and entry["launch"]["n_ctx"] == 300
        assert summary not in client.remove_autostart_model(uid)["models"]
        assert uid in client.list_models()
        back = client.upsert_autostart_model({"launch": entry["launch"]})["models"]
        assert uid in {each["launch"]["model_uid"] for each in back}
    finally:
        client.terminate_model(uid)
    assert uid not in {each["model_uid"] for each in client.get_autostart_model_summary()["models"]}


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("relaunch_api", []),
        ("get_api_relaunch", ["o"]),
        ("list_api_relaunches", []),
        ("relaunch_supervisor", []),
        ("get_supervisor_relaunch", ["o"]),
        ("list_supervisor_relaunches", []),
        ("relaunch_worker", ["127.0.0.1:1"]),
        ("get_worker_relaunch", ["o"]),
        ("list_worker_relaunches", []),
    ],
)
def test_a_part_that_the_server_does_not_have_is_not_relaunched(
    request: pytest.FixtureRequest, client: Any, method: str, arguments: list[str]
) -> None:
    if "async" in request.node.name and "worker" not in method:
        why = "AsyncClient of 4.1.0 has no such method, which its Client has"
        request.applymarker(pytest.mark.xfail(strict=True, raises=AttributeError, reason=why))
    with pytest.raises(RuntimeError, match="no separate API, supervisor and worker"):
        getattr(client, method)(*arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cluster_is_stopped(kind: str, tmp_path: Path) -> None:
    home = Home(tmp_path, free_port())
    process = home.serve()
    try:
        with connected(kind, home.url) as client:
            assert client.abort_cluster()["result"] is True
        assert process.wait(30) == 0
    finally:
        home.clean_up()
