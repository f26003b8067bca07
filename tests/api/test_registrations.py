"""The registration routes over a controller with a home of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import msgspec
import pytest

from tests.api.application import application
from tests.catalog.custom import EMBEDDING_2, RERANK, VERSION_1, VERSION_2, Json, changed
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import repository
from tests.formats.gguf_model import write_gguf
from xinference.catalog.models import Source
from xinference.catalog.registrations import read_registration
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.keys.keyring import Keyring
from xinference.store.database import Store
from xinference.weights.registration_draft import document

REGISTRATIONS = "/v1/model_registrations"


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx2.AsyncClient]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    store = Store(tmp_path / "home" / "x.db")
    settings = Settings(home=tmp_path / "home")
    (settings.home / "model" / "llm").mkdir(parents=True)
    (settings.home / "model" / "llm" / "damaged.json").write_text("{")
    controller = Controller(settings, store)
    await controller.start()
    app = application(controller, settings, Keyring(store))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as c:
        yield c
    await controller.close("stop")
    store.close()


async def register(client: httpx2.AsyncClient, document: Json, model_type: str = "LLM") -> httpx2.Response:
    return await client.post(f"{REGISTRATIONS}/{model_type}", json={"model": json.dumps(document), "persist": False})


async def test_a_registered_model_is_listed_among_the_others_and_removed_again(client: httpx2.AsyncClient) -> None:
    answer = await register(client, VERSION_1)
    assert (answer.status_code, answer.json()) == (200, None)
    listed = (await client.get(f"{REGISTRATIONS}/LLM")).json()
    names = [entry["model_name"] for entry in listed]
    assert names == sorted(names, key=str.lower)
    assert {"model_name": "my-llama", "is_builtin": False} in listed
    assert {"model_name": "llama-2-chat", "is_builtin": True} in listed
    assert (await client.delete(f"{REGISTRATIONS}/LLM/my-llama")).json() is None
    assert (await client.get(f"{REGISTRATIONS}/LLM/my-llama")).status_code == 404


async def test_a_registered_model_is_read_back_in_its_own_fields(client: httpx2.AsyncClient) -> None:
    await register(client, VERSION_1)
    found = (await client.get(f"{REGISTRATIONS}/llm/my-llama")).json()
    assert {name: found[name] for name in VERSION_1 if name != "model_specs"} == {
        name: value for name, value in VERSION_1.items() if name != "model_specs"
    }
    gguf, pytorch = found["model_specs"]
    assert gguf["model_file_name_template"] == "my-llama.{quantization}.gguf"
    assert (gguf["cache_status"], pytorch["cache_status"]) == ([False, False], [False] * 3)
    assert (found["model_version_count"], found["model_instance_count"], found["is_builtin"]) == (5, 0, False)


async def test_version_2_says_of_each_spec_whether_it_is_here(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    here = tmp_path / "weights"
    here.mkdir()
    (here / "config.json").write_text("{}")
    (here / "model.safetensors").write_bytes(b"")
    specs = [VERSION_2["model_specs"][0] | {"model_uri": f"file://{here}"}, VERSION_2["model_specs"][1]]
    assert (await register(client, changed(VERSION_2, {"model_specs": specs}))).status_code == 200
    found = (await client.get(f"{REGISTRATIONS}/LLM/my-qwen")).json()
    assert [spec["cache_status"] for spec in found["model_specs"]] == [True, False]


async def test_embedding_models_and_rerankers_are_registered_under_their_types(client: httpx2.AsyncClient) -> None:
    for model_type, given in (("embedding", EMBEDDING_2), ("rerank", RERANK)):
        assert (await register(client, given, model_type)).status_code == 200
        found = (await client.get(f"{REGISTRATIONS}/{model_type}/{given['model_name']}")).json()
        assert (found["model_type"], found["max_tokens"]) == (model_type, 512)
        assert (await client.get(f"{REGISTRATIONS}/LLM/{given['model_name']}")).status_code == 404


async def test_the_detailed_list_has_every_model_with_its_specs_and_what_is_here(client: httpx2.AsyncClient) -> None:
    await register(client, VERSION_1)
    listed = (await client.get(f"{REGISTRATIONS}/LLM", params={"detailed": "true"})).json()
    whole = [entry for entry in listed if "problem" not in entry]
    specs = [spec for entry in whole for spec in entry["model_specs"]]
    assert specs and all({"cache_status", "model_id", "model_format"} <= spec.keys() for spec in specs)
    assert all(e["model_version_count"] and e["model_instance_count"] == 0 for e in whole)


async def test_a_damaged_file_is_named_in_the_list(client: httpx2.AsyncClient) -> None:
    listed = (await client.get(f"{REGISTRATIONS}/LLM")).json()
    (damaged,) = [entry for entry in listed if "problem" in entry]
    assert (damaged["model_name"], damaged["is_builtin"]) == ("damaged", False)
    assert damaged["path"].endswith("damaged.json") and "not JSON" in damaged["problem"]["cause"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("LLM", {"model": "{"}, 400, "not JSON"),
        ("LLM", {}, 400, "model"),
        ("LLM", {"model": 5}, 400, "model"),
        ("image", {"model": "{}"}, 400, "Unsupported model type: image"),
        ("LLM", {"model": VERSION_1 | {"model_name": "qwen3"}}, 400, "conflicts with existing model qwen3"),
        ("LLM", {"model": VERSION_1 | {"model_family": None}}, 400, "You must specify `model_family`"),
    ],
)
async def test_what_cannot_be_registered_is_a_400_that_says_why(
    client: httpx2.AsyncClient, path: str, body: Json, status: int, said: str
) -> None:
    answer = await client.post(f"{REGISTRATIONS}/{path}", json=body)
    assert answer.status_code == status and said in answer.json()["detail"]


async def test_a_plan_of_a_registered_model_is_made_as_of_any_other(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    await register(client, VERSION_1)
    body = {"model_name": "my-llama", "model_engine": "llama.cpp", "quantization": "q8_0"}
    plan = (await client.post("/v1/models", params={"dry_run": "true"}, json=body)).json()
    assert (plan["version"], plan["model_id"]) == ("my-llama--7B--ggufv2--q8_0", "me/My-Llama-GGUF")
    assert [file["name"] for file in plan["files"]] == [
        "my-llama.q8_0-00001-of-00002.gguf",
        "my-llama.q8_0-00002-of-00002.gguf",
    ]
    engines = (await client.get("/v1/engines/my-llama")).json()
    assert {"model_name", "model_format"} <= engines["llama.cpp"][0].keys()


async def test_engines_are_told_of_what_a_path_holds_too(client: httpx2.AsyncClient) -> None:
    folder = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
    answer = await client.get(f"/v1/engines/{quote(str(folder), safe='')}", params={"detailed": "true"})
    assert answer.status_code == 200, answer.text
    assert {(row["model_format"], row["quantization"]) for row in answer.json()} == {
        ("pytorch", "none"),
        ("pytorch", "8-bit"),
        ("pytorch", "4-bit"),
    }
    gone = await client.get(f"/v1/engines/{quote('/nowhere/at all', safe='')}")
    assert gone.status_code == 400 and "does not exist" in gone.json()["detail"]


async def test_what_was_fetched_of_a_repository_that_no_registry_names_is_listed_and_removed(
    client: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_gguf(Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf", "Q4_0", tmp_path / "m.gguf")
    files = {"tiny-Q4_0.gguf": weights, "tiny-Q8_0.gguf": weights}
    with serve(LoopbackHub([repository("me/Tiny-GGUF", files, ("main",))])) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("XINFERENCE_OFFLINE", raising=False)
        body = {"model_name": "me/Tiny-GGUF", "quantization": "Q4_0"}
        begun = (await client.post("/v1/cache/models", json=body)).json()
        version = "Tiny-GGUF--0_002B--ggufv2--Q4_0"
        assert begun == {"model_version": version}
        events = await client.get(f"/v1/cache/models/{version}/events", params={"follow": "true"})
        assert "READY" in events.text
    for query in ({}, {"model_name": "Tiny-GGUF"}):
        listed = (await client.get("/v1/cache/models", params=query)).json()["list"]
        assert [(each["model_version"], each["complete"]) for each in listed] == [(version, True)]
    removed = await client.delete("/v1/cache/models", params={"model_version": version})
    assert removed.json()["result"] is True
    assert (await client.get("/v1/cache/models")).json() == {"list": []}


async def test_a_models_own_files_fill_in_a_registration_that_can_be_registered(
    client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    tiny = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
    weights = write_gguf(tiny, "Q4_0", tmp_path / "mine-Q4_0.gguf")
    for path, model_format in ((tiny, "pytorch"), (weights, "ggufv2")):
        answer = await client.post("/v1/models/llm/auto-register", json={"model_path": str(path)})
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert (document["model_specs"][0]["model_format"], document["context_length"]) == (model_format, 4096)
        assert (await register(client, document)).status_code == 200
        plan = await client.post("/v1/models", params={"dry_run": "true"}, json={"model_name": document["model_name"]})
        assert plan.json()["path"] == str(path), plan.text
    assert (await client.post("/v1/models/llm/auto-register", json={"model_path": "qwen3"})).status_code == 400


def test_a_split_model_is_written_with_its_parts() -> None:
    names = ("Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf")
    family = read_registration("LLM", json.dumps(VERSION_1), builtin_families()).family
    source = Source(hub="huggingface", model_id="o/r", parts={"Q8_0": names})
    spec = msgspec.structs.replace(family.model_specs[0], quantizations=("Q8_0",), sources=(source,))
    text = json.dumps(document(msgspec.structs.replace(family, model_specs=(spec,)), "other"))
    again = read_registration("LLM", text, builtin_families()).family
    assert again.model_specs[0].sources[0].parts == {"Q8_0": names}
