"""The figures of one request, noted while it is answered: times, sizes, and the ends of the answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from xinference.protocol.requests import Request
from xinference.records.tokens import Tokens, read_tokens
from xinference.records.trace import Span

if TYPE_CHECKING:
    from xinference.gateway.http.engine_connection import EngineConnection

Wait = Literal["load", "recovery", "permit", "quota"]
#: Matches an event with content: text, a thought, a call of a tool. Engines begin a stream with an event that only has
#: the role, and send it before they have computed a token.
CONTENT = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|thinking|partial_json|refusal)"\s*:\s*"[^"]'
    rb'|"(?:tool_calls|function_call)"\s*:\s*(?:\[\s*)?\{|"type"\s*:\s*"tool_use"'
)
EVENT_END = b"\n\n"


class Abortable(Protocol):
    """What ends a request early."""

    def abort(self) -> None:
        """End the request."""
        ...


class RequestFigures:
    """What is noted of one request. The class has the values of a request that has just begun."""

    number = 0
    began = ended = 0.0
    """Time of the request's head and of the end of its answer, by `time.perf_counter`."""
    status = 0
    """0: the client left before the answer began."""
    path = ""
    key_id = ""
    model = ""
    """The uid of the deployment or the adapter; empty until it is known."""
    replica = ""
    is_stream = False
    """Whether the client asked for a stream."""
    has_choices = False
    """Whether the request has several choices or prompts."""
    code = ""
    client_left = False
    is_free = False
    """The path runs no model."""
    first_token_at = 0.0
    """Time of the first content of a stream, by `time.perf_counter`; 0: none yet."""
    pieces_before = 0
    """The pieces of the answer before the one with the first content."""
    first = b""
    """The whole answer, or the first piece of it."""
    last = b""
    """The last pieces of an answer that came in several."""
    pieces = 0
    """The pieces in which the engine has sent the answer; each is an event of a stream."""
    span: Span | None = None
    """The place of the request in a trace; None: no request is traced."""
    bytes_in = 0
    bytes_out = 0
    wait_load = 0.0
    wait_recovery = 0.0
    wait_permit = 0.0
    wait_quota = 0.0
    waits_for = ""
    """What the request waits for now."""
    connection: EngineConnection | None = None
    """The connection on which the engine answers now."""
    watch: Abortable | None = None
    """Ends the request early; None: it cannot be aborted yet."""

    def note_choices(self, request: Request) -> None:
        """Note whether a request has several choices or prompts."""
        prompt = getattr(request, "prompt", None)
        self.has_choices = (getattr(request, "n", None) or 1) > 1 or isinstance(prompt, list)

    def note_content(self, chunk: bytes) -> None:
        """Note the time if `chunk` has the first content of a stream."""
        content = CONTENT.search(chunk)
        if content is not None:
            self.first_token_at = time.perf_counter()
            if self.connection is not None:
                # Several events may have arrived together.
                events_after = chunk.count(EVENT_END, content.start())
                self.pieces_before = max(0, self.connection.pieces - events_after)

    def leave_engine(self, connection: EngineConnection) -> None:
        """Note what an engine has sent; its connection is used for another request from now on."""
        self.pieces += connection.pieces
        self.bytes_out += connection.received
        self.connection = None

    @contextmanager
    def wait(self, waits_for: Wait) -> Iterator[None]:
        """A context in which the request waits."""
        began = time.perf_counter()
        self.waits_for = waits_for
        try:
            yield
        finally:
            self.waits_for = ""
            name = f"wait_{waits_for}"
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def tokens(self) -> Tokens | None:
        """The tokens that the engine has reported."""
        tokens = read_tokens(self.first, self.last)
        if tokens is not None and tokens.of_one_choice and self.has_choices:
            return None
        return tokens

    def estimated_output(self) -> int:
        """The tokens of a stream without usage: one for each event with content."""
        if not self.first_token_at:
            return 0
        return max(1, self.pieces + self._pieces_now() - self.pieces_before - (b"[DONE]" in self.last[-32:]))

    def _pieces_now(self) -> int:
        return self.connection.pieces if self.connection is not None else 0
