"""What a key without `manage` is told of registered models, and of the paths of this machine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from tests.catalog.custom import VERSION_1
from tests.formats.gguf_model import write_gguf
from xinference.gateway.app import Gateway
from xinference.weights.cache import versions_of

HF = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
SECRET_TEMPLATE = "{# known to few #}{% for m in messages %}{{ m.content }}{% endfor %}"
OPEN_TEMPLATE = "{# for that key #}{% for m in messages %}{{ m.content }}{% endfor %}"


def private(name: str, weights: Path, template: str) -> dict[str, Any]:
    spec = {
        "model_format": "ggufv2",
        "model_size_in_billions": 7,
        "quantizations": ["Q8_0"],
        "model_uri": f"file://{weights}",
        "model_file_name_template": weights.name,
    }
    return VERSION_1 | {"model_name": name, "chat_template": template, "model_specs": [spec]}


@pytest.fixture
async def client(app: FastAPI, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """The server's own user, before there are keys; two registered models, one damaged registration."""
    gateway = Gateway(app.state.controller, app.state.settings, app, app.state.keys, is_owner=lambda scope: True)
    weights = tmp_path / "secret-folder"
    weights.mkdir()
    file = write_gguf(HF, "Q8_0", weights / "m.gguf")
    transport = httpx2.ASGITransport(gateway, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for name, template in (("private-model", SECRET_TEMPLATE), ("for-the-key", OPEN_TEMPLATE)):
            document = private(name, file.parent, template)
            answer = await client.post(
                "/v1/model_registrations/LLM", json={"model": json.dumps(document), "persist": False}
            )
            assert answer.status_code == 200, answer.text
        yield client
    await gateway.close()


READS = (
    "/v1/model_registrations/LLM",
    "/v1/model_registrations/LLM?detailed=true",
    "/v1/model_registrations/LLM/private-model",
    "/v1/model_registrations/LLM/private-mode",
    "/v1/model_registrations/LLM/for-the-key",
    "/v1/models/prompts",
    "/v1/models/families",
    "/v1/models/vllm-supported",
    "/v1/models/LLM/private-model/versions",
    "/v1/models/LLM/for-the-key/versions",
    "/v1/models/LLM/private-mode/versions",
    "/v1/engines/private-model",
    "/v1/engines/LLM/private-model",
    "/v1/engines/LLM/private-mode",
    "/v1/engines/private-mode",
)


async def key(client: httpx2.AsyncClient, owner: dict[str, str], **fields: Any) -> dict[str, str]:
    made = await client.post("/v1/keys", json=fields, headers=owner)
    assert made.status_code == 200, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}


async def test_a_key_of_certain_models_reads_no_other_registered_model(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    owner = {"Authorization": f"Bearer {app.state.keys.open_for_owner()}"}
    one = await key(client, owner, models=["for-the-key"])
    for path in READS:
        told = await client.get(path, headers=one)
        asked = path.rpartition("/private-")[1]
        assert told.status_code == (404 if asked else 200), (path, told.text)
        rest = told.text if not asked else told.text.replace("private-model not found", "").replace("private-mode", "")
        assert "known to few" not in rest and "secret-folder" not in rest, (path, told.text)
        assert asked or "private-model" not in rest, (path, told.text)
    found = (await client.get("/v1/model_registrations/LLM/for-the-key", headers=one)).json()
    assert found["model_name"] == "for-the-key"
    assert "for that key" in (await client.get("/v1/models/prompts", headers=one)).text
    builtin = await client.get("/v1/model_registrations/LLM/llama-2-chat", headers=one)
    assert builtin.json()["model_specs"][0]["model_id"]


async def test_a_key_of_all_models_reads_registered_models_and_no_path(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    owner = {"Authorization": f"Bearer {app.state.keys.open_for_owner()}"}
    everything = await key(client, owner)
    manager = await key(client, owner, scopes=["manage"])
    for path in READS:
        told = await client.get(path, headers=everything)
        assert "secret-folder" not in told.text, (path, told.text)
    assert "private-model" in (await client.get(READS[0], headers=everything)).text
    whole = (await client.get("/v1/model_registrations/LLM/private-model", headers=manager)).text
    assert "secret-folder" in whole and "known to few" in whole


async def test_the_path_of_cached_weights_is_for_manage_only(
    app: FastAPI, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = app.state.controller
    (version,) = versions_of([controller.families["private-model"]])
    cached = SimpleNamespace(version=version, path=Path("/home/somebody/m.gguf"), complete=True)
    monkeypatch.setattr(controller.weights, "_cached", lambda families: [cached])
    owner = {"Authorization": f"Bearer {app.state.keys.open_for_owner()}"}
    everything = await key(client, owner)
    for headers, path in ((everything, None), (owner, "/home/somebody/m.gguf")):
        (found,) = (await client.get("/v1/models/LLM/private-model/versions", headers=headers)).json()
        assert (found["model_file_location"], found["cache_status"]) == (path, True)
