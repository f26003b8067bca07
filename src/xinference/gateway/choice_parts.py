"""Requests for more choices than an engine computes at once: the gateway sends them in parts, one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec
from msgspec import structs

from xinference.engines.dialect import Body
from xinference.errors import Problem
from xinference.gateway.divided_requests import PreparePart, divide
from xinference.gateway.engine_answers import ODD_ANSWER, odd_answer
from xinference.gateway.forward import ChoicePart, ForwardedCall, Forwarder
from xinference.gateway.http.asgi import Message, Reply
from xinference.gateway.split_requests import forward_divided
from xinference.protocol.errors import stream_error
from xinference.protocol.requests import Completion, Generation, Request
from xinference.routing.table import Route

Event = dict[str, Any]
DATA, DONE = b"data: ", b"[DONE]"


def split_choices(request: Generation, body: bytes, route: Route, prepare: PreparePart) -> tuple[ChoicePart, ...]:
    """The parts of a request, each with as many choices as the engine of the route has slots at most.

    Args:
        body: the request before any rewrite.
        prepare: rewrites a part for the engine.

    Raises:
        Refusal: 400, a part would have to be divided, and cannot be.
    """
    parts, wanted = [], request.n or 1
    for first in range(0, wanted, route.slots):
        count = min(route.slots, wanted - first)
        changed: Body = msgspec.json.decode(body) | {"n": count}
        changed.pop("best_of", None)
        if request.seed is not None:  # each choice has another seed, and the same one when the request is repeated
            changed["seed"] = request.seed + first
        part, part_body = structs.replace(request, n=count, seed=changed.get("seed")), msgspec.json.encode(changed)
        call = prepare(part, part_body)
        division = divide(part, part_body, route, prepare) if isinstance(part, Completion) else None
        parts.append(ChoicePart(call.body, call.answer, call.events, first, count, division))
    return tuple(parts)


async def forward_choices(
    forwarder: Forwarder, call: ForwardedCall, request: Request, route: Route, reply: Reply
) -> None:
    """Forward the parts of a call one after the other, and send the joined answer.

    Raises:
        Refusal: any refusal of a part, if nothing has been sent.
    """
    assert isinstance(request, Generation)
    joined: _Joined = _JoinedStream(reply, request) if request.stream else _JoinedAnswer(reply, request)
    for part in call.parts:
        part_call = structs.replace(call, body=part.body, answer=part.answer, events=part.events)
        joined.part = part
        part_reply = Reply(joined.send, figures=reply.figures)
        try:
            if part.division is not None:
                await forward_divided(forwarder, part_call, part.division, route, part_reply)
            else:
                await forwarder.forward(part_call, forwarder.newest(route), part_reply)
        except Problem as problem:
            if not reply.started:
                raise
            reply.figures.code = problem.code
            await reply.end(stream_error(str(problem), problem.code, anthropic=False, status=problem.status))
            return
        finally:
            reply.is_stream = reply.started and bool(request.stream)
        try:
            joined.end_part()
        except ODD_ANSWER as error:
            raise odd_answer(route.uid, f"in a form that cannot be read: {type(error).__name__}") from error
        if joined.has_failed:
            return
    await joined.end()


class _Joined(ABC):
    """Joins the answers of the parts."""

    part: ChoicePart

    def __init__(self, reply: Reply, request: Generation) -> None:
        self._reply = reply
        self._wanted = request.n or 1
        self._usage: dict[str, int] = {}
        self.has_failed = False

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Take a message of a part's answer."""

    def end_part(self) -> None:  # noqa: B027 -- a stream needs nothing here
        """Take the end of a part's answer."""

    @abstractmethod
    async def end(self) -> None:
        """Send the end of the joined answer."""

    def number(self, index: int) -> int:
        """The number of a choice in the joined answer; the choices of one prompt follow each other."""
        prompt, choice = divmod(index, self.part.count)
        return prompt * self._wanted + self.part.first + choice

    def add_usage(self, usage: Any) -> None:
        """Add the tokens of a part; the prompt counts once."""
        if not isinstance(usage, dict):
            return
        counted = self._usage or {"prompt_tokens": usage.get("prompt_tokens", 0), "completion_tokens": 0}
        completion = counted["completion_tokens"] + usage.get("completion_tokens", 0)
        total = counted["prompt_tokens"] + completion
        self._usage = counted | {"completion_tokens": completion, "total_tokens": total}


class _JoinedAnswer(_Joined):
    """Whole answers."""

    def __init__(self, reply: Reply, request: Generation) -> None:
        super().__init__(reply, request)
        self._body = b""
        self._answer: Event = {}
        self._choices: list[Event] = []

    async def send(self, message: Message) -> None:
        self._body += message.get("body", b"")

    def end_part(self) -> None:
        answer: Event = msgspec.json.decode(self._body)
        self._body = b""
        self._answer = self._answer or answer
        self._choices += [choice | {"index": self.number(choice["index"])} for choice in answer["choices"]]
        self.add_usage(answer.get("usage"))

    async def end(self) -> None:
        choices = sorted(self._choices, key=lambda choice: int(choice["index"]))
        usage = {"usage": self._usage} if self._usage else {}
        body = self._reply.figures.first = msgspec.json.encode(self._answer | {"choices": choices} | usage)
        self._reply.figures.last = b""
        await self._reply.whole(200, body)


class _JoinedStream(_Joined):
    """Streams: the events of each part in the stream of the first."""

    def __init__(self, reply: Reply, request: Generation) -> None:
        super().__init__(reply, request)
        self._head: Event = {}
        self._last: Event = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not self._reply.started:
                await self._reply.start(message["status"], message["headers"])
            return
        lines = [self._line(text.strip()) for text in message.get("body", b"").split(b"\n\n")]
        if self.has_failed:
            await self._reply.end(b"".join(lines))
        elif body := b"".join(lines):
            await self._reply.send({"type": "http.response.body", "body": body, "more_body": True})

    def _line(self, data: bytes) -> bytes:
        """One event of a part for the client."""
        if not data.startswith(DATA) or data == DATA + DONE:
            return b""
        event = msgspec.json.decode(data[len(DATA) :])
        if "error" in event:
            self.has_failed = True
            return data + b"\n\n"
        self._head = self._head or {name: event[name] for name in ("id", "created") if name in event}
        event |= self._head
        choices = event.get("choices")
        if not choices:
            self._last = event
            self.add_usage(event.get("usage"))
            return b""
        for choice in choices:
            choice["index"] = self.number(choice["index"])
        return DATA + msgspec.json.encode(event) + b"\n\n"

    async def end(self) -> None:
        usage = DATA + msgspec.json.encode(self._last | {"usage": self._usage}) + b"\n\n" if self._usage else b""
        if usage:
            self._reply.figures.last = usage
        await self._reply.end(usage + DATA + DONE + b"\n\n")
