"""Errors in the form of the data path's clients: OpenAI's envelope, or Anthropic's on its paths."""

from __future__ import annotations

import msgspec

from xinference.errors import Problem

ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


#: SDKs choose their exception by the status; programs read the type.
OPENAI_TYPES = {429: "rate_limit_error"}


class Refusal(Problem):
    """A `Problem` with the further fields of an HTTP error answer.

    With `retry_after`, a number of seconds, the hint and the header ``Retry-After`` say when to retry.

    Attributes:
        param: the invalid field of the request, such as ``messages[0].role``, or None.
        headers: answer headers in addition to the content type, such as ``Retry-After``.
    """

    def __init__(
        self,
        code: str | None,
        cause: str,
        *,
        status: int | None = None,
        param: str | None = None,
        hint: str | None = None,
        retry_after: int | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        if retry_after is not None:
            when = f"Retry in {retry_after} second{'' if retry_after == 1 else 's'}."
            hint = f"{hint} {when}" if hint else when
        super().__init__(code or "", cause, status=status, hint=hint)
        self.param = param
        self.headers = headers if retry_after is None else (*headers, (b"retry-after", b"%d" % retry_after))


def openai_error_object(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, str | None]:
    """OpenAI's error: ``{"message", "type", "param", "code"}``."""
    kind = OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": message, "type": kind, "param": param, "code": code or None}


def openai_error(status: int, message: str, code: str | None, param: str | None = None) -> bytes:
    """OpenAI's envelope, ``{"error": {…}}``; Xinference's clients read ``detail``."""
    return msgspec.json.encode({"error": openai_error_object(status, message, code, param), "detail": message})


def anthropic_error(status: int, message: str, code: str | None = None) -> bytes:
    """Anthropic's envelope: ``{"type": "error", "error": {"type", "message"}}``, with our `code` if it is given."""
    kind = ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    error = {"type": kind, "message": message} | ({"code": code} if code else {})
    return msgspec.json.encode({"type": "error", "error": error})


def stream_error(message: str, code: str, *, anthropic: bool, status: int = 500) -> bytes:
    """An error as one server-sent event, for an answer that has begun."""
    if anthropic:
        return b"event: error\ndata: " + anthropic_error(status, message, code) + b"\n\n"
    return b"data: " + openai_error(status, message, code) + b"\n\n"


Header = tuple[bytes, bytes]
