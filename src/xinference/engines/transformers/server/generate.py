"""Converts a checked request to sequences for the scheduler, and returns their pieces to the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from .constraints import Constraint, json_grammar, tool_grammar
from .errors import RefusedError
from .loading import LoadedModel
from .prompts import EncodedPrompt, Prompts, Rendered, continues
from .requests import ChatRequest, CompletionRequest, GenerationRequest, NamedTool
from .sampling import Sampler, SamplingParams
from .scheduler import Scheduler
from .sequence import Piece, Sequence
from .text import Detokenizer, StopStrings

#: OpenAI's default for a completion without a limit.
COMPLETION_TOKENS = 16


@dataclass(frozen=True)
class Job:
    """A request with encoded prompts."""

    request: ChatRequest | CompletionRequest
    prompts: list[EncodedPrompt]
    adapter: str | None
    constraint: Constraint | None
    """The constraint in its initial state; each sequence gets a copy."""
    created: int

    @property
    def choices(self) -> int:
        return self.request.n or 1

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt.tokens) for prompt in self.prompts)

    @property
    def parses_tools(self) -> bool:
        return isinstance(self.request, ChatRequest) and bool(self.request.tools) and self.request.tool_choice != "none"


class Generator:
    """Starts the sequences of a job and yields their pieces."""

    def __init__(self, loaded: LoadedModel, prompts: Prompts, scheduler: Scheduler) -> None:
        self._loaded, self._prompts, self._scheduler = loaded, prompts, scheduler

    def render(self, request: ChatRequest) -> Rendered:
        """The text of a conversation. Slow, up to a deadline: run it in a thread.

        Raises:
            RefusedError: 400: the fault of the request.
        """
        tools = request.tools if request.tool_schemas() and request.tool_choice != "none" else None
        may_continue = request.continue_final_message is not False
        return self._prompts.render(request.messages, tools, request.chat_template_kwargs, may_continue=may_continue)

    def encode(self, request: ChatRequest | CompletionRequest, rendered: Rendered | None) -> list[EncodedPrompt]:
        """The tokens of the prompts; `rendered` is the result of `render`. Slow for long prompts: run it in a thread.

        Raises:
            RefusedError: 400: the fault of the request.
        """
        if isinstance(request, ChatRequest):
            assert rendered is not None
            return [self._prompts.encode_chat(rendered)]
        if request.suffix:
            raise RefusedError("suffix is not supported by this model.", param="suffix")
        return list(map(EncodedPrompt, self._prompts.encode_prompts(request.prompt)))

    def grammar(self, request: ChatRequest | CompletionRequest) -> str | None:
        """The grammar of the answer, to be compiled; None: it has none.

        Raises:
            RefusedError: 400: the fault of the request.
        """
        _bias(request, self._loaded.vocab_size)
        chosen = _tool_choice_grammar(request) if isinstance(request, ChatRequest) else None
        return chosen or _format_grammar(request)

    async def run(self, job: Job) -> AsyncGenerator[tuple[int, Piece], None]:
        """Every piece with the index of its choice; ending the iteration cancels the running sequences."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

        def deliver_to(index: int) -> Any:
            return lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))

        places = [(prompt, choice) for prompt in job.prompts for choice in range(job.choices)]
        sequences = [
            self._sequence(job, prompt, choice, deliver_to(index)) for index, (prompt, choice) in enumerate(places)
        ]
        for prompt in job.prompts:
            if prompt.images is not None:
                prompt.images.users = job.choices
        try:
            for sequence in sequences:
                self._scheduler.submit(sequence)
            left = len(sequences)
            while left:
                index, piece = await pieces.get()
                left -= piece.finish is not None
                yield index, piece
        finally:
            for sequence in sequences:
                sequence.cancelled = True

    def _sequence(self, job: Job, encoded: EncodedPrompt, choice: int, deliver: Any) -> Sequence:
        request, loaded, prompt = job.request, self._loaded, encoded.tokens
        room = loaded.context_length + 1 - len(prompt)
        continued = isinstance(request, CompletionRequest) or continues(request.messages[-1])
        stop_tokens = set(request.stop_token_ids or ()) | (set() if request.ignore_eos else set(loaded.eos))
        return Sequence(
            tokens=list(prompt),
            sampler=Sampler(self._sampling(request, choice), prompt, loaded.vocab_size, loaded.device),
            detokenizer=Detokenizer(self._prompts.decode, prompt if continued else ()),
            deliver=deliver,
            max_tokens=min(room, _requested_tokens(request) or room),
            stops=StopStrings([request.stop] if isinstance(request.stop, str) else request.stop or ()),
            stop_tokens=frozenset(stop_tokens),
            constraint=None if job.constraint is None else job.constraint.copy(),
            adapter=job.adapter,
            images=encoded.images,
            wants_prompt_logprobs=isinstance(request, CompletionRequest)
            and request.echo
            and request.logprobs is not None,
        )

    def _sampling(self, request: ChatRequest | CompletionRequest, choice: int) -> SamplingParams:
        defaults = self._loaded.defaults

        def chosen(name: str, otherwise: float) -> Any:
            requested = getattr(request, name)
            return requested if requested is not None else defaults.get(name, otherwise)

        return SamplingParams(
            temperature=chosen("temperature", 1.0),
            top_p=chosen("top_p", 1.0),
            top_k=max(0, chosen("top_k", 0)),
            min_p=chosen("min_p", 0.0),
            # The choices differ from each other, but are the same in a repeated request.
            seed=None if request.seed is None else request.seed + choice,
            repetition_penalty=chosen("repetition_penalty", 1.0),
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias=_bias(request, self._loaded.vocab_size),
            logprobs=_alternatives(request),
        )


def _requested_tokens(request: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(request, CompletionRequest):
        return request.max_tokens or COMPLETION_TOKENS
    return request.max_completion_tokens or request.max_tokens


def _alternatives(request: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(request, CompletionRequest):
        return request.logprobs
    return (request.top_logprobs or 0) if request.logprobs else None


def _bias(request: GenerationRequest, vocab_size: int) -> dict[int, float]:
    bias = {}
    for key, value in (request.logit_bias or {}).items():
        if not key.isdecimal() or int(key) >= vocab_size:
            raise RefusedError(f"logit_bias: {key!r} is not a token of this model.", param="logit_bias")
        bias[int(key)] = value
    return bias


def _format_grammar(request: GenerationRequest) -> str | None:
    if request.guided_json is not None:
        schema = request.guided_json
        try:
            return json_grammar(json.loads(schema) if isinstance(schema, str) else schema)
        except (ValueError, TypeError) as error:
            raise RefusedError(f"guided_json is not a JSON schema: {error}", param="guided_json") from None
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return json_grammar({"type": "object"})
    if wanted.json_schema is None:
        raise RefusedError("response_format.json_schema is required.", param="response_format.json_schema")
    return json_grammar(wanted.json_schema.schema_)


def _tool_choice_grammar(request: ChatRequest) -> str | None:
    choice, tools = request.tool_choice, request.tool_schemas()
    if choice is None or choice in ("none", "auto"):
        return None
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in tools:
            raise RefusedError(f"tool_choice names {name!r}, which is not among tools.", param="tool_choice")
        tools = {name: tools[name]}
    if not tools:
        raise RefusedError("tool_choice requires a call, but there are no tools.", param="tool_choice")
    return tool_grammar(tools, several=choice == "required" and bool(request.parallel_tool_calls))
