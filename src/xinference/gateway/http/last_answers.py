"""The answers that are still open when the server stops: each client gets an error in the form of its answer."""

from __future__ import annotations

import asyncio

import msgspec

from xinference.error_codes import Code
from xinference.errors import SERVER_STOPPING, SERVER_STOPPING_HINT
from xinference.gateway.http.asgi import Message, Reply, Send
from xinference.gateway.http.error_replies import refuse, refuse_management
from xinference.protocol.errors import Header, Refusal, stream_error

#: For a request that the stop of the server leaves without an answer. Nobody promised the time, so no text says it.
RETRY: tuple[Header, ...] = ((b"retry-after", b"5"),)


class Shutdown:
    """The state of the server's end, which requests read."""

    begun = False
    """The server has begun to stop."""
    answers_end = False
    """The time for open answers is over: from now on a cancelled request is one that the stop has cancelled."""


async def end_answer(reply: Reply) -> None:
    """End an open answer of the data path, in the task of its request, which the stop has cancelled.

    A stream gets an error event, a request without an answer a 503. A whole answer of which a part is sent stays
    incomplete, and the connection is closed: nothing else can tell a client that has received a part of it.
    """
    _go_on()
    if not reply.started:
        await refuse(reply, _refusal())
    elif reply.is_stream and not reply.ended:
        await reply.end(stream_error(SERVER_STOPPING, Code.SERVER_STOPPING, anthropic=reply.anthropic, status=503))


class ManagementAnswer:
    """An answer of the management API on its way to the client, of which the gateway sees only the messages."""

    __slots__ = ("_ended", "_kind", "_send", "_started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = self._ended = False
        self._kind = b""

    async def send(self, message: Message) -> None:
        """Send a message of the answer."""
        if message["type"] == "http.response.start":
            self._started = True
            self._kind = dict(message.get("headers", ())).get(b"content-type", b"")
        else:
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def end(self) -> None:
        """End the answer, in the task of its request, which the stop has cancelled: see `end_answer`."""
        _go_on()
        if not self._started:
            await refuse_management(Reply(self._send), _refusal(), openai=False)
        elif not self._ended and self._kind.startswith(b"text/event-stream"):
            event = {"event_type": Code.SERVER_STOPPING.upper(), "problem": _refusal().to_dict()}
            body = b"data: " + msgspec.json.encode(event) + b"\n\n"
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
        elif not self._ended and self._kind.startswith(b"text/plain"):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _go_on() -> None:
    """Let the current task go on after it was cancelled."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


def _refusal() -> Refusal:
    return Refusal(Code.SERVER_STOPPING, SERVER_STOPPING, hint=SERVER_STOPPING_HINT, headers=RETRY)
