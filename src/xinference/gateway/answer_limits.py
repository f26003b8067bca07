"""The limits of one answer that a key or a launch sets: its number of tokens, and the time of its engine.

A request that names no number of tokens gets the limit; a request for more is refused, because a shorter answer than
the one that was requested would look complete.
"""

from __future__ import annotations

import asyncio

from xinference.engines.dialect import Dialect
from xinference.error_codes import Code
from xinference.gateway.http.asgi import Reply
from xinference.gateway.request_document import RequestDocument
from xinference.keys.key import Key
from xinference.protocol.errors import Refusal, stream_error
from xinference.protocol.requests import AnthropicMessages, Completion, Generation, Infill, Request
from xinference.routing.table import Route

#: The fields of requests and of engines with the number of tokens of an answer.
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "n_predict")
#: SDKs repeat a request after a 504, and the next try would take as long.
NO_RETRY = ((b"x-should-retry", b"false"),)


def limit_tokens(
    key: Key | None,
    route: Route,
    request: Request,
    document: RequestDocument,
    dialect: Dialect,
    *,
    is_response: bool = False,
) -> None:
    """Apply the limit of tokens of the key and the model, whichever is smaller, to a request.

    Raises:
        Refusal: 400, the request is for more tokens.
    """
    of_key = None if key is None else key.max_output_tokens
    limit = min((each for each in (of_key, route.max_output_tokens) if each is not None), default=None)
    if limit is None or not isinstance(request, Generation | AnthropicMessages | Infill):
        return
    fields, is_named = document.fields, False
    for name in TOKEN_FIELDS:
        number = fields.get(name)
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        if number > limit:
            owner = "this API key" if limit == of_key else f"the model {route.uid!r}"
            raise _too_many("max_output_tokens" if is_response else name, number, limit, owner)
        if name not in request.__struct_fields__ and name not in dialect.native.taken:
            continue  # the engine does not get this field
        if number < 0:  # no limit
            document.remove(fields, name)
        else:
            is_named = True
    default = dialect.completion_tokens if isinstance(request, Completion) else None
    if not is_named and (default is None or default > limit):
        # One engine refuses a number that is larger than the context.
        name = "n_predict" if isinstance(request, Infill) else "max_tokens"
        document.put(fields, name, min(limit, route.context_length or limit))


def _too_many(name: str, number: float, limit: int, owner: str) -> Refusal:
    return Refusal(
        Code.INVALID_REQUEST,
        f"{name}: {number} is more than {limit}, the maximum number of output tokens of {owner}.",
        hint=f"Use at most {limit}.",
        param=name,
    )


class TimeLimit:
    """The time that engines may spend on one request; it runs between `start` and `stop`, also several times."""

    __slots__ = ("_has_ended", "_left", "_seconds", "_started", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = seconds
        self._started = 0.0
        self._has_ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Let the time run: at its end the current task is cancelled."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._started = loop.time()
        self._timer = loop.call_at(self._started + self._left, self._cancel)

    def stop(self) -> None:
        """Stop the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= asyncio.get_running_loop().time() - self._started

    def takes_cancellation(self) -> bool:
        """Whether the end of the time, and nothing else, has cancelled the task, which then goes on."""
        return self._has_ended and self._task is not None and self._task.uncancel() == 0

    async def end(self, reply: Reply, uid: str) -> None:
        """End a stream with an error.

        Raises:
            Refusal: 504, the answer has not begun, or is not a stream.
        """
        message = f"The answer of the model {uid!r} took longer than {self._seconds:g} seconds, its time limit."
        if not reply.started or not reply.is_stream:
            hint = "Ask for a shorter answer."
            raise Refusal(Code.TIME_LIMIT_EXCEEDED, message, hint=hint, headers=NO_RETRY)
        reply.figures.code = Code.TIME_LIMIT_EXCEEDED
        await reply.end(stream_error(message, Code.TIME_LIMIT_EXCEEDED, anthropic=reply.anthropic, status=504))

    def _cancel(self) -> None:
        self._has_ended = True
        assert self._task is not None
        self._task.cancel()


def time_limit(key: Key | None, route: Route) -> TimeLimit | None:
    """The shorter one of the time limits of the key and the model; None: there is none."""
    of_key = None if key is None else key.max_request_seconds
    seconds = min((each for each in (of_key, route.max_request_seconds) if each is not None), default=None)
    return None if seconds is None else TimeLimit(seconds)
