"""The HTTP application: routes, the key, streams, and cancellation on disconnect."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import requests
from .answers import AnswerBuilder
from .constraints import Grammars
from .errors import RefusedError
from .generate import Generator, Job
from .limited import WORKERS, Workers
from .loading import LoadedModel
from .prompts import Prompts
from .scheduler import Scheduler


class ModelRoutes:
    """The routes of one loaded model."""

    def __init__(self, loaded: LoadedModel, uid: str, scheduler: Scheduler) -> None:
        self._loaded, self._uid, self._scheduler = loaded, uid, scheduler
        workers = Workers()
        self._prompts = Prompts(loaded, workers)
        self._grammars = Grammars(loaded.tokenizer, loaded.vocab_size, loaded.eos, loaded.device, workers)
        self._generator = Generator(loaded, self._prompts, scheduler)
        # Encoding a long prompt takes a while, and a tokenizer must not be used by two threads.
        self._encoding = ThreadPoolExecutor(1, "encoding")
        # Each thread waits for one process, so a process that works up to its deadline does not delay the others.
        self._limiting = ThreadPoolExecutor(WORKERS, "limited")

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/health", self.health),
            Route("/progress", self.progress),
            Route("/metrics", self.metrics),
            Route("/v1/models", self.models),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/apply-template", self.apply_template, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def progress(self, request: Request) -> Response:
        """Answered after the current step: shows that the computing thread and the encoding thread make progress."""
        loop, stepped = asyncio.get_running_loop(), asyncio.Event()
        self._scheduler.call_after_step(lambda: loop.call_soon_threadsafe(stepped.set))
        await stepped.wait()
        await self._run_encoder(int)
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        lines = []
        for name, value in vars(self._scheduler.counters).items():
            kind = "gauge" if name in ("running", "waiting") else "counter"
            full = f"xinference_transformers_{name}{'_total' if kind == 'counter' else ''}"
            lines += [f"# TYPE {full} {kind}", f"{full} {value}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        names = (self._uid, *self._loaded.adapters)
        length = self._loaded.context_length
        data = [{"id": n, "object": "model", "owned_by": "xinference", "max_model_len": length} for n in names]
        return JSONResponse({"object": "list", "data": data})

    async def tokenize(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.TokenizeRequest)
        if body.messages is not None:
            text, special = await self._run_limited(self._prompts.render, body.messages), False
        elif body.content is not None:
            text, special = body.content, body.add_special
        else:
            text, special = body.prompt or "", body.add_special_tokens
        tokens = await self._run_encoder(lambda: self._prompts.encode(text, add_special=special))
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": self._loaded.context_length})

    async def detokenize(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.DetokenizeRequest)
        tokens = self._prompts.check_tokens(body.tokens, "tokens") if body.tokens else []
        text = await self._run_encoder(self._prompts.decode_all, tokens)
        return JSONResponse({"content": text, "prompt": text})

    async def apply_template(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.TemplateRequest)
        return JSONResponse({"prompt": await self._run_limited(self._prompts.render, body.messages)})

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, requests.read(await request.body(), requests.CompletionRequest))

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, requests.read(await request.body(), requests.ChatRequest))

    async def _answer(self, request: Request, body: requests.ChatRequest | requests.CompletionRequest) -> Response:
        adapter = self._adapter(body.model)
        text = await self._run_limited(self._generator.render, body) if isinstance(body, requests.ChatRequest) else None
        prompts = await self._run_encoder(self._generator.encode, body, text)
        grammar = self._generator.grammar(body)
        constraint = await self._run_limited(self._grammars.compile, grammar) if grammar is not None else None
        job = Job(body, prompts, adapter, constraint, int(time.time()))
        answer = AnswerBuilder(job, body.model, self._echo_texts(job), self._token_bytes)
        if body.stream:
            return StreamingResponse(self._stream(job, answer), media_type="text/event-stream")
        return await _cancel_on_disconnect(request, self._collect(job, answer))

    async def _collect(self, job: Job, answer: AnswerBuilder) -> Response:
        async for index, piece in self._generator.run(job):
            if piece.finish == "error":
                raise RefusedError("The model failed; its log has the reason.", status=500, kind="server_error")
            answer.take(index, piece)
        return JSONResponse(answer.whole())

    async def _stream(self, job: Job, answer: AnswerBuilder) -> AsyncIterator[bytes]:
        for chunk in answer.opening():
            yield _event(chunk)
        run = self._generator.run(job)
        try:
            async for index, piece in run:
                if piece.finish == "error":
                    yield _event({"error": {"message": "The model failed.", "type": "server_error", "code": None}})
                    return
                new = answer.take(index, piece)
                if new is not None:
                    yield _event(new)
        finally:
            # Otherwise the iteration of a cancelled stream, and its sequences in the batch, would stay open.
            await run.aclose()  # type: ignore[attr-defined]  # an async generator
        closing = answer.closing()
        if closing is not None:
            yield _event(closing)
        yield b"data: [DONE]\n\n"

    def _adapter(self, model: str) -> str | None:
        if model == self._uid:
            return None
        if model in self._loaded.adapters:
            return model
        names = ", ".join((self._uid, *self._loaded.adapters))
        raise RefusedError(
            f"The model {model!r} does not exist; existing models: {names}.",
            status=404,
            code="model_not_found",
            param="model",
        )

    def _echo_texts(self, job: Job) -> list[str]:
        if isinstance(job.request, requests.CompletionRequest) and job.request.echo:
            return [self._prompts.decode(prompt) for prompt in job.prompts]
        return [""] * len(job.prompts)

    def _token_bytes(self, token: int) -> bytes:
        return bytes(self._grammars.tokenizer().decode_bytes([token]))

    async def _run_limited(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._limiting, work, *arguments)

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


def build_app(loaded: LoadedModel, uid: str, key: str, scheduler: Scheduler) -> ASGIApp:
    """The whole application."""
    handlers: dict[Any, Any] = {RefusedError: _error_response, HTTPException: _no_such_path}
    return WithKey(Starlette(routes=ModelRoutes(loaded, uid, scheduler).routes(), exception_handlers=handlers), key)


def _error_response(request: Request | None, error: RefusedError) -> Response:
    return JSONResponse({"error": error.error}, status_code=error.status)


def _no_such_path(request: Request, error: HTTPException) -> Response:
    refused = RefusedError(f"{request.method} {request.url.path}: {error.detail}.", status=error.status_code)
    return _error_response(request, refused)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


async def _cancel_on_disconnect(request: Request, work: Awaitable[Response]) -> Response:
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


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
