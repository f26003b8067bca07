"""Downloads and environments under the names of newer clients, and the types of models that are not served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from xinference.environments.installed import MARKER
from xinference.environments.lock import read_locks


async def get(client: httpx2.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("kind", ["image", "audio", "video", "flexible", "world", "Image"])
async def test_there_are_no_models_of_a_type_that_is_not_served(empty: httpx2.AsyncClient, kind: str) -> None:
    assert await get(empty, f"/v1/model_registrations/{kind}") == []
    assert await get(empty, f"/v1/model_registrations/{kind}?detailed=true") == []
    assert (await empty.get(f"/v1/model_registrations/{kind}/x")).status_code in (400, 404)
    assert (await empty.get("/v1/model_registrations/imagine")).status_code == 400


async def test_the_progress_of_a_request_is_a_number(empty: httpx2.AsyncClient) -> None:
    assert (await get(empty, "/v1/requests/nobody/progress"))["progress"] == 0


async def test_without_downloads_the_list_is_empty(empty: httpx2.AsyncClient) -> None:
    assert await get(empty, "/v1/downloads") == {"list": []}
    for method, path in (
        ("POST", "/v1/downloads/x/pause"),
        ("POST", "/v1/downloads/x/resume"),
        ("DELETE", "/v1/downloads/x"),
        ("GET", "/v1/cache/models/x/progress"),
        ("POST", "/v1/cache/models/x/cancel"),
    ):
        answer = await empty.request(method, path)
        assert (answer.status_code, answer.json()["problem"]["code"]) == (404, "download_not_found"), path


async def test_environments_are_those_of_the_engines(empty: httpx2.AsyncClient, app: FastAPI) -> None:
    assert await get(empty, "/v1/virtualenvs") == {"list": []}
    missing = await empty.get("/v1/virtualenvs/packages?model_engine=vLLM")
    assert (missing.status_code, missing.json()["problem"]["code"]) == (404, "environment_missing")
    lock = next(lock for lock in read_locks() if lock.spec.engine == "vLLM")
    folder: Path = app.state.settings.home / "environments" / lock.folder_name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / "environment.toml").write_text(lock.recipe_text)
    (folder / "requirements.txt").write_text(lock.requirements_text)
    (folder / MARKER).write_text('{"size_bytes": 5, "seconds": 1}')
    (environment,) = (await get(empty, "/v1/virtualenvs?model_engine=vllm"))["list"]
    assert environment["path"] == str(folder) and environment["size_bytes"] == 5
    assert await get(empty, "/v1/virtualenvs?model_engine=SGLang") == {"list": []}
    listed = await get(empty, "/v1/virtualenvs/packages?model_engine=vLLM")
    assert listed["python_version"] == lock.recipe.python
    assert {each["name"] for each in listed["packages"]} == lock.distributions
