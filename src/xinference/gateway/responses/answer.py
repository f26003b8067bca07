"""The response in OpenAI's form: from a chat's answer, or event by event from a chat's stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from xinference.gateway.built_answers import DONE, data_of, thought_of
from xinference.gateway.responses.request import Translation
from xinference.gateway.responses.tools import call_item, custom_input

Body = dict[str, Any]
#: Takes a finished response.
Keep = Callable[[Body], None]
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseBuilder:
    """One response: the events of its stream, and the whole of it."""

    def __init__(self, translation: Translation, model: str, keep: Keep) -> None:
        self._translation = translation
        self._keep = keep
        self._model = model
        self._id = f"resp_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._output: list[Body] = []
        self._open: Body | None = None
        """The item that is being written; its text is in `_text`."""
        self._text: list[str] = []
        self._logprobs: list[Body] = []
        self._calls: dict[int, Body] = {}
        """The calls by their index in the chat: ``id``, ``name``, ``arguments``."""
        self._finish: str | None = None
        self._usage: Body | None = None
        self._error: Body | None = None
        self._sequence = 0
        self._events: list[bytes] = []
        self._begun = self._ended = False

    # -- both ways ------------------------------------------------------------------------------------------

    def whole(self, body: bytes) -> bytes:
        """The response for a chat's whole answer."""
        answer = msgspec.json.decode(body)
        choice = (answer.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        self._take(message, choice.get("logprobs"))
        self._finish, self._usage = choice.get("finish_reason"), answer.get("usage")
        response = self._end()
        self._events.clear()
        return msgspec.json.encode(response)

    def events(self, chunk: bytes) -> bytes:
        """The events of a response for complete events of a chat's stream."""
        for data in data_of(chunk):
            if not self._begun:
                self._begun = True
                for kind in ("response.created", "response.in_progress"):
                    self._emit(kind, response=self._response("in_progress"))
            if data == DONE:
                self._end()
            elif not self._ended:
                self._read(msgspec.json.decode(data))
        events = b"".join(self._events)
        self._events.clear()
        return events

    def _read(self, event: Body) -> None:
        if event.get("error"):
            error = event["error"]
            message = error.get("message") if isinstance(error, dict) else error
            self._error = {"code": "server_error", "message": str(message)}
            self._end()
            return
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or ():
            self._take(choice.get("delta") or {}, choice.get("logprobs"))
            self._finish = choice.get("finish_reason") or self._finish

    def _take(self, delta: Body, logprobs: Any) -> None:
        """Add a message, or a piece of one."""
        if thought := thought_of(delta):
            self._write("reasoning", thought)
        if delta.get("content"):
            self._logprobs += (logprobs or {}).get("content") or []
            self._write("message", delta["content"])
        for n, call in enumerate(delta.get("tool_calls") or ()):
            self._take_call(call.get("index", n), call)

    def _take_call(self, index: int, call: Body) -> None:
        function = call.get("function") or {}
        known = self._calls.get(index)
        if known is None:
            self._close()
            known = {"id": call.get("id") or f"call_{secrets.token_hex(12)}", "name": "", "arguments": "", "sent": 0}
            known["suffix"] = secrets.token_hex(16)
            self._calls[index] = known
        known["name"] += function.get("name") or ""
        known["arguments"] += function.get("arguments") or ""

    # -- items ----------------------------------------------------------------------------------------------

    def _write(self, kind: str, text: str) -> None:
        if self._open is None or self._open["type"] != kind:
            self._close()
            self._begin(kind)
        assert self._open is not None
        self._text.append(text)
        name = "response.output_text.delta" if kind == "message" else "response.reasoning_text.delta"
        self._emit_part(name, delta=text, **({"logprobs": []} if kind == "message" else {}))

    def _begin(self, kind: str) -> None:
        if kind == "message":
            item: Body = {
                "id": f"msg_{secrets.token_hex(16)}",
                "type": kind,
                "status": "in_progress",
                "role": "assistant",
            }
        else:
            item = {"id": f"rs_{secrets.token_hex(16)}", "type": kind, "status": "in_progress", "summary": []}
        self._open = item | {"content": []}
        self._emit("response.output_item.added", output_index=len(self._output), item=self._open)
        self._emit_part("response.content_part.added", part=self._part(kind, ""))

    def _close(self) -> None:
        """End the item that is being written."""
        item, text = self._open, "".join(self._text)
        self._text = []
        if item is None:
            return
        kind = item["type"]
        part = self._part(kind, text)
        if kind == "message":
            part["logprobs"], self._logprobs = self._logprobs, []
            self._emit_part("response.output_text.done", text=text, logprobs=part["logprobs"])
        else:
            self._emit_part("response.reasoning_text.done", text=text)
        self._emit_part("response.content_part.done", part=part)
        self._open = None
        self._add(item | {"content": [part], "status": self._status()})

    def _add(self, item: Body) -> None:
        self._emit("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)

    def _add_calls(self) -> None:
        for _, call in sorted(self._calls.items()):
            make = (self._translation.tools, call["name"], call["id"])
            at = len(self._output)
            begun = call_item(*make, "", call["suffix"], "in_progress")
            item = call_item(*make, call["arguments"], call["suffix"], self._status())
            self._emit("response.output_item.added", output_index=at, item=begun)
            if item["type"] != "local_shell_call":
                is_function = item["type"] == "function_call"
                kind = "function_call_arguments" if is_function else "custom_tool_call_input"
                text = call["arguments"] if is_function else custom_input(call["arguments"])
                self._emit(f"response.{kind}.delta", item_id=item["id"], output_index=at, delta=text)
                done = {"arguments": text, "name": item["name"]} if is_function else {"input": text}
                self._emit(f"response.{kind}.done", item_id=item["id"], output_index=at, **done)
            self._add(item)
        self._calls.clear()

    @staticmethod
    def _part(kind: str, text: str) -> Body:
        if kind == "message":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": "reasoning_text", "text": text}

    # -- the response ---------------------------------------------------------------------------------------

    def _status(self) -> str:
        return "incomplete" if self._finish in INCOMPLETE or self._error else "completed"

    def _end(self) -> Body:
        if self._ended:
            return {}
        self._ended = True
        self._close()
        self._add_calls()
        status = "failed" if self._error else self._status()
        response = self._response(status)
        if self._error is None:
            self._keep(response)
        self._emit(f"response.{status}", response=response)
        return response

    def _response(self, status: str) -> Body:
        request = self._translation.request
        reason = INCOMPLETE.get(self._finish or "") if status == "incomplete" else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": self._error,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": request.get("instructions"),
            "max_output_tokens": request.get("max_output_tokens"),
            "max_tool_calls": request.get("max_tool_calls"),
            "metadata": request.get("metadata") or {},
            "model": self._model,
            "parallel_tool_calls": request.get("parallel_tool_calls", True),
            "previous_response_id": request.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None, **(request.get("reasoning") or {})},
            "service_tier": request.get("service_tier") or "default",
            "store": request.get("store", True),
            "temperature": request.get("temperature", 1.0),
            "text": {"format": {"type": "text"}, **(request.get("text") or {})},
            "tool_choice": request.get("tool_choice") or "auto",
            "tools": request.get("tools") or [],
            "top_logprobs": request.get("top_logprobs") or 0,
            "top_p": request.get("top_p", 1.0),
            "truncation": "disabled",
            "user": request.get("user"),
            "output": list(self._output),
            # At the end: tokens are counted from the last bytes of an answer.
            "usage": self._counts(),
        }

    def _counts(self) -> Body | None:
        usage = self._usage
        if usage is None:
            return None
        prompt, answer = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": answer,
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": prompt + answer,
        }

    # -- events ---------------------------------------------------------------------------------------------

    def _emit(self, kind: str, **fields: Any) -> None:
        data = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        self._events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(data)))

    def _emit_part(self, kind: str, **fields: Any) -> None:
        assert self._open is not None
        self._emit(kind, item_id=self._open["id"], output_index=len(self._output), content_index=0, **fields)
