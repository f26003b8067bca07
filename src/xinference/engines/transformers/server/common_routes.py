"""The routes that models of every kind have, and the whole application: the key, the errors, and disconnects."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import requests
from .counters import Counters
from .errors import RefusedError
from .token_codec import TokenCodec


class ComputingThread(Protocol):
    """The part of a scheduler that these routes use."""

    @property
    def counters(self) -> Counters: ...

    def call_after_step(self, function: Callable[[], object]) -> None:
        """Call `function` from the computing thread before its next step."""
        ...


class CommonRoutes:
    """The routes about the server, and those of the tokenizer."""

    def __init__(
        self, names: Sequence[str], context_length: int, codec: TokenCodec, scheduler: ComputingThread
    ) -> None:
        self._names = tuple(names)
        self._context_length = context_length
        self._codec = codec
        self._computing = scheduler
        # Encoding a long text takes a while, and a tokenizer must not be used by two threads.
        self._encoding = ThreadPoolExecutor(1, "encoding")

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/health", self.health),
            Route("/progress", self.progress),
            Route("/metrics", self.metrics),
            Route("/v1/models", self.models),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def progress(self, request: Request) -> Response:
        """Answered after the current step: shows that the computing thread and the encoding thread make progress."""
        loop, stepped = asyncio.get_running_loop(), asyncio.Event()
        self._computing.call_after_step(lambda: loop.call_soon_threadsafe(stepped.set))
        await stepped.wait()
        await self._run_encoder(int)
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        lines = []
        for name, value in vars(self._computing.counters).items():
            kind = "gauge" if name in ("running", "waiting") else "counter"
            full = f"xinference_transformers_{name}{'_total' if kind == 'counter' else ''}"
            lines += [f"# TYPE {full} {kind}", f"{full} {value}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        length = self._context_length
        data = [{"id": n, "object": "model", "owned_by": "xinference", "max_model_len": length} for n in self._names]
        return JSONResponse({"object": "list", "data": data})

    async def tokenize(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.TokenizeRequest)
        tokens = await (self._text_tokens(body) if body.messages is None else self._chat_tokens(body))
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": self._context_length})

    async def detokenize(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.DetokenizeRequest)
        tokens = self._codec.check_tokens(body.tokens, "tokens") if body.tokens else []
        text = await self._run_encoder(self._codec.decode_all, tokens)
        return JSONResponse({"content": text, "prompt": text})

    async def _text_tokens(self, body: requests.TokenizeRequest) -> list[int]:
        if body.content is not None:
            text, special = body.content, body.add_special
        else:
            text, special = body.prompt or "", body.add_special_tokens
        tokens: list[int] = await self._run_encoder(lambda: self._codec.encode(text, add_special=special))
        return tokens

    async def _chat_tokens(self, body: requests.TokenizeRequest) -> list[int]:
        raise RefusedError("This model has no chat template.", param="messages")

    async def _run_encoder(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._encoding, work, *arguments)


class WithKey:
    """Requires the key on every route except /health."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._expected = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            header = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(header, self._expected):
                error = RefusedError("The key is missing or wrong.", status=401, code="invalid_api_key")
                await _error_response(None, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def build_app(routes: CommonRoutes, key: str) -> ASGIApp:
    """The whole application."""
    handlers: dict[Any, Any] = {RefusedError: _error_response, HTTPException: _no_such_path}
    return WithKey(Starlette(routes=routes.routes(), exception_handlers=handlers), key)


def no_such_model(model: str, names: Sequence[str]) -> RefusedError:
    """The refusal of a request to a model that this server does not have."""
    return RefusedError(
        f"The model {model!r} does not exist; existing models: {', '.join(names)}.",
        status=404,
        code="model_not_found",
        param="model",
    )


async def cancel_on_disconnect(request: Request, work: Awaitable[Response]) -> Response:
    """The answer of `work`, which is cancelled if the client disconnects before."""
    job = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({job, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await job if job.done() else Response(status_code=499)
    finally:
        leaving.cancel()
        job.cancel()
        await asyncio.gather(job, leaving, return_exceptions=True)


def _error_response(request: Request | None, error: RefusedError) -> Response:
    return JSONResponse({"error": error.error}, status_code=error.status)


def _no_such_path(request: Request, error: HTTPException) -> Response:
    refused = RefusedError(f"{request.method} {request.url.path}: {error.detail}.", status=error.status_code)
    return _error_response(request, refused)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
