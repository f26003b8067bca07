"""The routes of a model that generates text: chats, completions, streams."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from . import requests
from .answers import AnswerBuilder
from .common_routes import CommonRoutes, cancel_on_disconnect, no_such_model
from .constraints import Grammars
from .errors import RefusedError
from .generate import Generator, Job
from .limited import WORKERS, Workers
from .loading import LoadedModel
from .prompts import EncodedPrompt, Prompts, Rendered
from .scheduler import Scheduler

#: The error of a schema that no answer can satisfy, or not from this position on.
UNSATISFIED = "The schema allows no further token of an answer."


class ModelRoutes(CommonRoutes):
    """The routes of one loaded model."""

    def __init__(self, loaded: LoadedModel, uid: str, scheduler: Scheduler) -> None:
        self._loaded, self._uid = loaded, uid
        workers = Workers()
        self._prompts = Prompts(loaded, workers)
        super().__init__((uid, *loaded.adapters), loaded.context_length, self._prompts, scheduler)
        self._grammars = Grammars(loaded.tokenizer, loaded.vocab_size, loaded.eos, loaded.device, workers)
        self._generator = Generator(loaded, self._prompts, scheduler)
        # Each thread waits for one process, so a process that works up to its deadline does not delay the others.
        self._limiting = ThreadPoolExecutor(WORKERS, "limited")
        # One at a time, so that the decoded images of one request are in memory. The processor has its own tokenizer.
        self._imaging = ThreadPoolExecutor(1, "images")

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            *super().routes(),
            Route("/apply-template", self.apply_template, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]

    async def apply_template(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.TemplateRequest)
        may_continue = body.continue_final_message is not False
        rendered = await self._rendered(body.messages, body.tools, body.chat_template_kwargs, may_continue=may_continue)
        return JSONResponse({"prompt": rendered.text})

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, requests.read(await request.body(), requests.CompletionRequest))

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, requests.read(await request.body(), requests.ChatRequest))

    async def _answer(self, request: Request, body: requests.ChatRequest | requests.CompletionRequest) -> Response:
        adapter = self._adapter(body.model)
        chat = isinstance(body, requests.ChatRequest)
        rendered = await self._run_limited(self._generator.render, body) if chat else None
        prompts = await self._encoded(self._generator.encode, rendered, body, rendered)
        grammar = self._generator.grammar(body)
        constraint = None
        if grammar is not None:
            param = "response_format" if body.guided_json is None else "guided_json"
            constraint = await self._run_limited(self._grammars.compile, grammar, param)
        job = Job(body, prompts, adapter, constraint, int(time.time()))
        answer = AnswerBuilder(job, body.model, self._echo_texts(job), self._token_bytes)
        if body.stream:
            return StreamingResponse(self._stream(job, answer), media_type="text/event-stream")
        return await cancel_on_disconnect(request, self._collect(job, answer))

    async def _collect(self, job: Job, answer: AnswerBuilder) -> Response:
        async for index, piece in self._generator.run(job):
            if piece.finish == "error":
                raise RefusedError("The model failed; its log has the reason.", status=500, kind="server_error")
            if piece.finish == "constraint":
                raise RefusedError(UNSATISFIED, code="invalid_constraint", param="response_format")
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
                if piece.finish == "constraint":
                    error = {"message": UNSATISFIED, "type": "invalid_request_error", "code": "invalid_constraint"}
                    yield _event({"error": error})
                    return
                new = answer.take(index, piece)
                if new is not None:
                    yield _event(new)
        finally:
            # Otherwise the iteration of a cancelled stream, and its sequences in the batch, would stay open.
            await run.aclose()
        closing = answer.closing()
        if closing is not None:
            yield _event(closing)
        yield b"data: [DONE]\n\n"

    def _adapter(self, model: str) -> str | None:
        if model == self._uid:
            return None
        if model in self._loaded.adapters:
            return model
        raise no_such_model(model, self._names)

    def _echo_texts(self, job: Job) -> list[str]:
        if isinstance(job.request, requests.CompletionRequest) and job.request.echo:
            return [self._prompts.decode(prompt.tokens) for prompt in job.prompts]
        return [""] * len(job.prompts)

    def _token_bytes(self, token: int) -> bytes:
        return bytes(self._grammars.tokenizer().decode_bytes([token]))

    async def _rendered(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        more: dict[str, Any] | None,
        *,
        may_continue: bool = True,
    ) -> Rendered:
        render = partial(self._prompts.render, may_continue=may_continue)
        rendered: Rendered = await self._run_limited(render, messages, tools or None, more)
        return rendered

    async def _chat_tokens(self, body: requests.TokenizeRequest) -> list[int]:
        rendered = await self._rendered(body.messages or [], body.tools, body.chat_template_kwargs)
        encoded: EncodedPrompt = await self._encoded(self._prompts.count_chat, rendered, rendered)
        return encoded.tokens

    async def _encoded(self, work: Callable[..., Any], rendered: Rendered | None, *arguments: Any) -> Any:
        """The result of `work` from the thread for images, or from the one for texts, which doesn't wait for images."""
        if rendered is None or not rendered.images:
            return await self._run_encoder(work, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._imaging, work, *arguments)

    async def _run_limited(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._limiting, work, *arguments)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
