"""Answers to HTTP/1.0 clients, such as nginx with its default settings towards an upstream.

HTTP/1.0 has no chunks (RFC 9112, section 6.1): the end of the connection is the end of an answer without a length.
uvicorn closes the connection after each answer to HTTP/1.0, but sends such an answer in chunks.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def end_by_closing(cycle: RequestResponseCycle) -> None:
    """Send the answer of a request that has not been handled yet without chunks."""
    send = cycle.send
    has_length = False

    async def send_without_chunks(message: Any) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not has_length:
                cycle.chunked_encoding = False  # uvicorn decides only if this is None
        elif not has_length:
            # uvicorn compares the bytes of the body with this number.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = send_without_chunks  # type: ignore[method-assign]  # only this cycle's answer changes
    # A client of HTTP/1.0 does not know "100 Continue" (RFC 9110, section 10.1.1).
    cycle.waiting_for_100_continue = False
