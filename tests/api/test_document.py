"""The OpenAPI document, the page made of it, and the table in the docs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.routes import document, scope_of
from xinference.api.app import build_routes
from xinference.gateway.routes import DATA_PATHS

DOCS = Path(__file__).parents[2] / "docs" / "rest.md"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document()


def operations(made: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(m.upper(), path, op) for path, each in sorted(made["paths"].items()) for m, op in each.items()]


def test_the_docs_have_every_route_with_what_it_needs(made: dict[str, Any]) -> None:
    rows = []
    for method, path, operation in operations(made):
        what = (operation.get("description") or operation["summary"]).partition("\n")[0].rstrip(".").replace("``", "`")
        rows.append(f"| {method} | `{path}` | {what} | {scope_of(method, path)} |")
    methods = ("| GET", "| POST", "| DELETE", "| PUT", "| PATCH")
    told = [line for line in DOCS.read_text().splitlines() if line.startswith(methods)]
    assert told == rows


def test_every_route_says_which_errors_it_answers_and_none_says_422_for_us(made: dict[str, Any]) -> None:
    for method, path, operation in operations(made):
        statuses = set(operation["responses"])
        assert statuses & {"200", "202"} and not statuses & {"4XX", "5XX", "default"}, (method, path)
        assert path in ("/health", "/metrics") or "403" in statuses, (method, path)
        assert path in DATA_PATHS or "422" not in statuses, (method, path)
        if operation.get("requestBody") and path != "/token":
            assert {"400", "413", "415"} <= statuses, (method, path)


def test_every_path_of_the_gateway_is_in_it_with_the_shape_that_is_checked(made: dict[str, Any]) -> None:
    assert set(DATA_PATHS) | {"/health", "/metrics", "/v1/models"} <= set(made["paths"])
    assert set(made["paths"]["/v1/models"]) == {"get", "post"}
    chat = made["components"]["schemas"]["Chat"]
    assert {"model", "messages"} == set(chat["required"]) and "max_tokens" in chat["properties"]


def test_every_reference_leads_somewhere(made: dict[str, Any]) -> None:
    waiting: list[Any] = [made]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            reference = here.get("$ref")
            if isinstance(reference, str):
                assert reference.removeprefix("#/components/schemas/") in made["components"]["schemas"], reference
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


async def test_the_page_needs_nothing_from_another_server(empty: httpx2.AsyncClient) -> None:
    page = (await empty.get("/docs")).text
    assert "/v1/models/{model_uid}/progress" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


async def test_the_document_is_made_once_and_not_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[threading.Thread] = []

    def build(*_: Any) -> dict[str, Any]:
        made.append(threading.current_thread())
        return {"info": {"title": "a", "version": "b"}, "paths": {}}

    monkeypatch.setattr("xinference.api.openapi._build_document", build)
    transport = httpx2.ASGITransport(app=build_routes({}))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answers = await asyncio.gather(*(client.get(path) for path in ("/openapi.json", "/docs", "/openapi.json")))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(made) == 1 and made[0] is not threading.main_thread()


async def test_the_page_can_be_served_under_another_path(empty: httpx2.AsyncClient) -> None:
    page = (await empty.get("/docs")).text
    assert "href=openapi.json" in page and "href=/" not in page
    assert "`" not in page, "names of fields and paths are marked as code"
