"""Errors of a load, and errors of a client's request in OpenAI's envelope."""

from __future__ import annotations

from typing import Any


class LoadError(Exception):
    """The model can't be served; the text is for the user."""


class RefusedError(Exception):
    """Becomes an answer with `status` and OpenAI's error object."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | int | None = None,
        kind: str = "invalid_request_error",
        param: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code, **more}


def too_long(prompt_tokens: int, context_length: int) -> RefusedError:
    """The prompt has more tokens than the context. llama.cpp's text, which contains both numbers."""
    return RefusedError(
        f"the request has {prompt_tokens} tokens, and the context holds {context_length}",
        code=400,
        kind="exceed_context_size_error",
        n_prompt_tokens=prompt_tokens,
        n_ctx=context_length,
    )
