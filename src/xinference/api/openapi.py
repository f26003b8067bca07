"""The OpenAPI document of the management routes and the gateway's routes, and a page that lists them."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, Response
from pydantic.json_schema import models_json_schema

from xinference.api.errors import ProblemBody, problems
from xinference.work_threads import start_thread

Json = dict[str, Any]
REF = "#/components/schemas/{model}"
METHODS = ("get", "post", "put", "patch", "delete")
DESCRIPTION = """One command turns the name of an open language model into an OpenAI-compatible endpoint.

Management routes report errors as `{"detail", "problem"}`, inference routes in OpenAI's and Anthropic's forms. Once
there are keys, requests need one as `Authorization: Bearer`."""


@dataclass(frozen=True)
class _Made:
    document: Json
    encoded: bytes
    page: str


class _Document:
    """The document of an app, made once, in a thread: it takes seconds, and the event loop serves all requests."""

    def __init__(self, app: FastAPI, data_path: Mapping[str, Any]) -> None:
        self._app = app
        self._data_path = data_path
        self._making: Future[_Made] | None = None

    def start(self) -> Future[_Made]:
        if self._making is None:
            self._making = start_thread("openapi", self._make)
        return self._making

    async def made(self) -> _Made:
        return await asyncio.shield(asyncio.wrap_future(self.start()))

    def _make(self) -> _Made:
        document = _build_document(self._app, self._data_path)
        encoded = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        return _Made(document, encoded, _page(document))


def install(app: FastAPI, data_path: Mapping[str, Any]) -> None:
    """Serve /openapi.json and /docs from `app`; `data_path` has the paths and components of the gateway's routes."""
    document = _Document(app, data_path)
    app.openapi = lambda: document.start().result().document  # type: ignore[method-assign]  # FastAPI documents this way

    @app.get("/openapi.json", include_in_schema=False)
    async def encoded() -> Response:
        """The OpenAPI document of all routes."""
        return Response((await document.made()).encoded, media_type="application/json")

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def page() -> str:
        """Every route on one page, without scripts and without requests to other servers."""
        return (await document.made()).page


def _build_document(app: FastAPI, data_path: Mapping[str, Any]) -> Json:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for operations in document["paths"].values():
        for operation in operations.values():
            # FastAPI documents a 422 in its own form, but an invalid value is a 400 here.
            operation["responses"].pop("422", None)
            if "requestBody" in operation:
                _add_body_errors(operation)
    schemas.update(models_json_schema([(ProblemBody, "serialization")], ref_template=REF)[1]["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in data_path.get("paths", {}).items():
        document["paths"].setdefault(path, {}).update(operations)
    schemas.update(data_path.get("components", {}).get("schemas", {}))
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"key": []}]
    return document


def _add_body_errors(operation: Json) -> None:
    for status, answer in problems(413, 415).items():
        operation["responses"].setdefault(str(status), answer)


def _first_line(operation: Json) -> str:
    text: str = operation.get("description") or operation.get("summary") or ""
    return text.partition("\n")[0]


def _page(document: Json) -> str:
    rows = [
        f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{_as_html(_first_line(operation))}</td></tr>"
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
        if method in METHODS
    ]
    title = html.escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:15px/1.5 system-ui;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "td{padding:.2rem .8rem .2rem 0;vertical-align:top}</style>"
        f"<h1>{title}</h1><p>The whole document: <a href=openapi.json>openapi.json</a></p>"
        f"<table>{''.join(rows)}</table></html>"
    )


def _as_html(text: str) -> str:
    """A line of a description: what stands between backquotes is code."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", html.escape(text))
