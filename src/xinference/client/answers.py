"""Parses the server's answers: bodies, streams and problems. Does no I/O, so that both clients share it."""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from xinference.error_codes import Code
from xinference.errors import Problem

T = TypeVar("T")
Json = dict[str, Any]

#: The event types that end a launch's stream of events.
LAST_EVENTS = frozenset({"READY", "FAILED", "TERMINATED", "SERVER_STOPPING"})


class UnexpectedAnswer(ValueError):
    """The body is not an answer to this request: another program listens at the endpoint."""


class ModelLoading(Problem):
    """A 503 with a time for the next try: the model is loading.

    Attributes:
        retry_after: seconds to wait before the next try.
    """

    def __init__(self, problem: Problem, retry_after: float) -> None:
        super().__init__(
            problem.code,
            problem.cause,
            status=problem.status,
            stage=problem.stage,
            hint=problem.hint,
            log_tail=problem.log_tail,
            suggestions=problem.suggestions,
        )
        self.retry_after = retry_after


def as_json(body: bytes) -> Any:
    """The body as JSON of any shape."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UnexpectedAnswer("no JSON") from None


def as_object(body: bytes) -> Json:
    """The body as one JSON object."""
    answer = as_json(body)
    if not isinstance(answer, dict):
        raise UnexpectedAnswer("no JSON object")
    return answer


def as_log(body: bytes, headers: Mapping[str, str]) -> Json:
    """A part of a log as its text and the place after it."""
    offset = headers.get("X-Log-Offset")
    if offset is None:
        raise UnexpectedAnswer("no log")
    return {"text": body.decode("utf-8", "replace"), "offset": offset}


def as_objects(body: bytes) -> list[Json]:
    """The body as a JSON list of objects."""
    answer = as_json(body)
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise UnexpectedAnswer("no JSON list of objects")
    return answer


def as_data(body: bytes) -> list[Json]:
    """The ``data`` of an OpenAI list."""
    data = as_object(body).get("data")
    if not isinstance(data, list):
        raise UnexpectedAnswer("no OpenAI list")
    return data


def as_list(body: bytes) -> list[Json]:
    """The ``list`` of an answer that wraps one."""
    items = as_object(body).get("list")
    if not isinstance(items, list):
        raise UnexpectedAnswer("no list")
    return items


def as_models(body: bytes) -> dict[str, Json]:
    """OpenAI's list of models, by id."""
    models = as_data(body)
    if not all(isinstance(model, dict) and "id" in model for model in models):
        raise UnexpectedAnswer("no OpenAI list of models")
    return {str(model["id"]): model for model in models}


def as_health(body: bytes) -> Json:
    """The status of the server."""
    answer = as_object(body)
    if "status" not in answer:
        raise UnexpectedAnswer("no status")
    return answer


def as_result(body: bytes) -> bool:
    """The ``result`` of an answer."""
    return bool(as_object(body).get("result"))


def as_remaining_replicas(body: bytes) -> int:
    """The ``remaining_replicas`` of an answer."""
    remaining = as_object(body).get("remaining_replicas")
    if not isinstance(remaining, int):
        raise UnexpectedAnswer("no remaining_replicas")
    return remaining


def as_token(body: bytes) -> str:
    """The ``access_token`` of a login's answer."""
    return _as_name(body, "access_token")


def as_model_uid(body: bytes) -> str:
    """The ``model_uid`` of a launch's answer."""
    return _as_name(body, "model_uid")


def as_model_version(body: bytes) -> str:
    """The ``model_version`` of a download's answer."""
    return _as_name(body, "model_version")


def _as_name(body: bytes, key: str) -> str:
    name = as_object(body).get(key)
    if not isinstance(name, str):
        raise UnexpectedAnswer(f"no {key}")
    return name


def as_nothing(body: bytes) -> None:
    """Ignores the body."""


def read_problem(status: int, body: bytes, retry_after: str | None = None) -> Problem:
    """The problem in an error answer of the server.

    Args:
        status: HTTP status, 400 or more.
        body: management errors have ``problem`` and ``detail``, OpenAI's routes have ``error``.
        retry_after: the header of that name, in seconds.

    Raises:
        UnexpectedAnswer: the body has neither.
    """
    answer = as_object(body)
    if isinstance(answer.get("problem"), dict):
        problem = Problem.from_dict(answer["problem"])
    elif "error" in answer:
        problem = _from_openai(answer["error"], status)
    elif answer.get("detail", "Not Found") == "Not Found":
        raise UnexpectedAnswer("a web framework's own 404")  # a 404 of Xinference names the missing thing
    else:
        problem = Problem(Code.HTTP_ERROR, _detail(answer["detail"]), status=status)
    if status == 503 and retry_after is not None:
        try:
            return ModelLoading(problem, float(retry_after))
        except ValueError:  # an HTTP date
            return ModelLoading(problem, 1.0)
    return problem


def _from_openai(error: Any, status: int) -> Problem:
    if not isinstance(error, dict):
        return Problem(Code.HTTP_ERROR, str(error), status=status)
    code = error.get("code") or error.get("type") or "http_error"
    return Problem(
        str(code),
        str(error.get("message", "unknown problem")),
        status=status,
    )


def _detail(detail: Any) -> str:
    """The detail as one text; FastAPI sends a list with one entry for each wrong field."""
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(
        f"{'.'.join(str(part) for part in item.get('loc', ()))}: {item.get('msg')}"
        if isinstance(item, dict)
        else str(item)
        for item in detail
    )


class ServerSentEvents:
    """Splits a byte stream into the ``data`` of its server-sent events (WHATWG HTML, section 9.2)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The events that `chunk` completes. Only newlines end lines: U+2028 and similar characters are data."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r").decode("utf-8", "replace")
            if text.startswith("data:"):
                self._data.append(text[5:].removeprefix(" "))
            elif not text and self._data:
                yield "\n".join(self._data)
                self._data.clear()


class Decoder(ABC, Generic[T]):
    """Parses a streamed body into items, chunk by chunk."""

    @abstractmethod
    def feed(self, chunk: bytes) -> Iterator[T]:
        """The items that `chunk` completes.

        Raises:
            Problem: the stream contains one.
        """

    @abstractmethod
    def complete(self) -> bool:
        """Whether the stream has ended properly and was not cut off."""


class LaunchEvents(Decoder[Json]):
    """The events of one launch; complete after one of `LAST_EVENTS`."""

    def __init__(self) -> None:
        self._events = ServerSentEvents()
        self._last = False

    def feed(self, chunk: bytes) -> Iterator[Json]:
        for data in self._events.feed(chunk):
            event = as_object(data.encode())
            self._last = event.get("event_type") in LAST_EVENTS
            yield event

    def complete(self) -> bool:
        return self._last


class CompletionChunks(Decoder[Json]):
    """The chunks of a streamed completion; complete after ``[DONE]``."""

    def __init__(self) -> None:
        self._events = ServerSentEvents()
        self._done = False

    def feed(self, chunk: bytes) -> Iterator[Json]:
        for data in self._events.feed(chunk):
            if data == "[DONE]":
                self._done = True
                continue
            answer = as_object(data.encode())
            if "error" in answer:
                raise read_problem(500, data.encode())
            yield answer

    def complete(self) -> bool:
        return self._done


class Text(Decoder[str]):
    """Plain text in arbitrary chunks; it has no end mark."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, chunk: bytes) -> Iterator[str]:
        if text := self._decoder.decode(chunk):
            yield text

    def complete(self) -> bool:
        return True
