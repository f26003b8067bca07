"""The message in Anthropic's form: from a chat's answer, or event by event from a chat's stream."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.built_answers import DONE, data_of, thought_of
from xinference.gateway.canonical_fields import UNREADABLE, readable_arguments
from xinference.gateway.messages.cut_calls import complete_arguments
from xinference.protocol.errors import stream_error

#: A chat's reason for the end of an answer -> Anthropic's. All others are the end of the model's turn.
_REASONS = {
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}


def token_count(body: bytes) -> bytes:
    """The answer of `/v1/messages/count_tokens` for an answer of `/tokenize`."""
    answer = msgspec.json.decode(body)
    count = answer.get("count")
    return msgspec.json.encode({"input_tokens": len(answer["tokens"]) if count is None else count})


class MessageBuilder:
    """One message: the events of its stream, or the whole of it."""

    def __init__(self, model: str, stops: list[str]) -> None:
        """
        Args:
            stops: the request's stop texts, of which the message names the one that has ended it.
        """
        self._model = model
        self._stops = stops
        self._id = f"msg_{secrets.token_hex(12)}"
        self._finish: str | None = None
        self._stop: str | None = None
        self._has_calls = False
        self._usage: Body = {}
        self._index = -1
        """The number of the last block of the stream."""
        self._open: str | int | None = None
        """The block that is being written: its kind, or the number of a call; None: there is none."""
        self._begun_calls: set[int] = set()
        self._begun = self._ended = False
        self._events: list[bytes] = []

    # -- a whole answer -----------------------------------------------------------------------------------------

    def whole(self, body: bytes) -> bytes:
        """The message for a chat's whole answer."""
        answer = msgspec.json.decode(body)
        choice = answer["choices"][0]
        message = choice["message"]
        blocks: list[Body] = []
        if thought := thought_of(message):
            blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
        if message.get("content"):
            blocks.append({"type": "text", "text": message["content"]})
        for call in message.get("tool_calls") or ():
            given = _input(call["function"].get("arguments"), is_cut=choice.get("finish_reason") == "length")
            blocks.append(_call(call) | {"input": given})
            self._has_calls = True
        self._note_end(choice)
        self._usage = answer.get("usage") or {}
        # The usage is at the end: tokens are counted from the last bytes of an answer.
        return msgspec.json.encode(self._message(blocks) | self._reasons() | {"usage": self._counts()})

    # -- a stream -----------------------------------------------------------------------------------------------

    def events(self, chunk: bytes) -> bytes:
        """The events of a message for complete events of a chat's stream."""
        for data in data_of(chunk):
            if self._ended:
                break
            if data == DONE:
                self._begin()
                self._end()
            else:
                self._read(msgspec.json.decode(data))
        events = b"".join(self._events)
        self._events.clear()
        return events

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        message = self._message([]) | {"stop_reason": None, "stop_sequence": None, "usage": self._counts()}
        self._emit("message_start", message=message)

    def _read(self, event: Body) -> None:
        if event.get("error"):
            self._fail(event["error"])
            return
        self._begin()
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if thought := thought_of(delta):
                self._write("thinking", {"thinking": "", "signature": ""}, "thinking_delta", "thinking", thought)
            if delta.get("content"):
                self._write("text", {"text": ""}, "text_delta", "text", delta["content"])
            for n, call in enumerate(delta.get("tool_calls") or ()):
                self._write_call(call.get("index", n), call)
            self._note_end(choice)

    def _write(self, kind: str, empty: Body, delta: str, name: str, text: str) -> None:
        if self._open != kind:
            self._start(kind, {"type": kind, **empty})
        self._emit("content_block_delta", index=self._index, delta={"type": delta, name: text})

    def _write_call(self, number: int, call: Body) -> None:
        """Write a piece of a call. Engines write one call after the other, so each is one block.

        Raises:
            ValueError: the call is complete already.
        """
        if self._open != number:
            if number in self._begun_calls:
                raise ValueError(f"a piece of call {number} comes after another block")
            self._begun_calls.add(number)
            self._has_calls = True
            self._start(number, _call(call) | {"input": {}})
        arguments = (call.get("function") or {}).get("arguments")
        if arguments:
            delta = {"type": "input_json_delta", "partial_json": arguments}
            self._emit("content_block_delta", index=self._index, delta=delta)

    def _start(self, opened: str | int, block: Body) -> None:
        self._close()
        self._open = opened
        self._index += 1
        self._emit("content_block_start", index=self._index, content_block=block)

    def _close(self) -> None:
        if self._open is not None:
            self._open = None
            self._emit("content_block_stop", index=self._index)

    def _end(self) -> None:
        self._ended = True
        self._close()
        self._emit("message_delta", delta=self._reasons(), usage=self._counts())
        self._emit("message_stop")

    def _fail(self, error: Any) -> None:
        """End the stream with an engine's error."""
        self._ended = True
        fields = error if isinstance(error, dict) else {"message": error}
        code, is_request = fields.get("code"), fields.get("type") == "invalid_request_error"
        named = code if isinstance(code, str) else Code.ENGINE_ERROR
        message = str(fields.get("message"))
        self._events.append(stream_error(message, named, anthropic=True, status=400 if is_request else 500))

    def _emit(self, kind: str, **fields: Any) -> None:
        self._events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields})))

    # -- both ---------------------------------------------------------------------------------------------------

    def _note_end(self, choice: Body) -> None:
        self._finish = choice.get("finish_reason") or self._finish
        stop = choice.get("stop_reason")
        if isinstance(stop, str) and stop in self._stops:
            self._stop = stop

    def _message(self, blocks: list[Body]) -> Body:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": blocks}

    def _reasons(self) -> Body:
        reason = _REASONS.get(self._finish or "", "end_turn")
        if self._has_calls and reason == "end_turn":
            reason = "tool_use"
        if self._stop is not None and reason == "end_turn":
            return {"stop_reason": "stop_sequence", "stop_sequence": self._stop}
        return {"stop_reason": reason, "stop_sequence": None}

    def _counts(self) -> Body:
        """The tokens; Anthropic counts those of the prompt that were in a cache apart."""
        cached = (self._usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return {
            "input_tokens": max(0, (self._usage.get("prompt_tokens") or 0) - cached),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self._usage.get("completion_tokens") or 0,
        }


def _call(call: Body) -> Body:
    function = call.get("function") or {}
    call_id = call.get("id") or f"toolu_{secrets.token_hex(12)}"
    return {"type": "tool_use", "id": call_id, "name": function.get("name") or ""}


def _input(arguments: Any, *, is_cut: bool) -> Any:
    """The input of a call of a whole answer.

    Args:
        is_cut: the maximum number of tokens has ended the answer.
    """
    given = msgspec.json.decode(readable_arguments(arguments).encode())
    if is_cut and UNREADABLE in given and isinstance(arguments, str):
        return complete_arguments(arguments)
    return given
