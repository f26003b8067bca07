"""The record of one request: its times, its tokens and how it ended, without anything of the prompt or the answer."""

from __future__ import annotations

import msgspec

#: The node of a server that runs on one machine.
LOCAL_NODE = "local"
#: The status of a request whose client left before its answer began.
CLIENT_LEFT = 499


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request that has ended. Durations are seconds."""

    request_id: str
    started: float
    """Time of the request's head, in seconds since the epoch."""
    key_id: str
    """Empty: the request had no key."""
    model: str
    """The uid of the deployment or the adapter; empty if the request named no known model."""
    replica: str
    """The replica that was asked last; empty: none was."""
    path: str
    stream: bool
    """Whether the client asked for a stream."""
    status: int
    code: str
    """The code of the error; empty: the answer is complete."""
    client_left: bool
    total: float
    """From the request's head to the end of its answer."""
    first_token: float | None
    """From the request's head to the first content of a stream; None: no content, or no stream."""
    prompt_tokens: int | None
    cached_tokens: int | None
    """The tokens of the prompt that the engine had computed before."""
    output_tokens: int | None
    exact: bool
    """Whether the engine has reported the tokens; if not, the output is an estimate and the prompt is not known."""
    wait_load: float
    """The wait until an on-demand model was loaded."""
    wait_recovery: float
    """The wait until an engine was started again."""
    wait_permit: float
    """The wait for a place at an engine."""
    wait_quota: float
    """The wait for the check of the limits of the key and the model."""
    bytes_in: int
    bytes_out: int
    """Bytes of the body that the engine has sent."""
    node: str = LOCAL_NODE
    trace: str = ""
    """The ids of its trace, its span and its client's span, with hyphens; empty: the request is not traced."""

    @property
    def per_token(self) -> float | None:
        """Seconds between two tokens of a complete stream; None: not known."""
        return per_token(self)


def per_token(record: Record) -> float | None:
    """See `Record.per_token`. A function, because it is called for each request."""
    output = record.output_tokens
    if record.first_token is None or not output or output < 2 or record.code or record.client_left:
        return None
    return (record.total - record.first_token) / (output - 1)
