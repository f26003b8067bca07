"""The tokens of an answer that a key's limit counts."""

from __future__ import annotations

from xinference.gateway.http.asgi import Reply

#: Estimate for answers without usage: this number of request bytes counts as one token.
BYTES_PER_TOKEN = 4


def spent_tokens(reply: Reply, request_bytes: int) -> int:
    """The tokens of prompt and answer; an estimate if the answer has no usage, and 0 for an error.

    A stream has usage if its client asked for it. The estimate counts each event as one token and the prompt by its
    bytes.
    """
    figures = reply.figures
    if figures.is_free or not 200 <= reply.status < 300:
        return 0
    tokens = figures.tokens()
    if tokens is None:
        return request_bytes // BYTES_PER_TOKEN + figures.estimated_output()
    return tokens.prompt + tokens.output
