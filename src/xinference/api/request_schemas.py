"""The answers about requests and usage, for the OpenAPI document. Later versions may add fields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xinference.api.schemas import Answer


class Waits(Answer):
    """Seconds that a request waited."""

    load: float = Field(description="Until an on-demand model was loaded")
    recovery: float = Field(description="Until an engine was started again")
    permit: float = Field(description="For a place at an engine")
    quota: float = Field(description="For the check of the key's limits")


class RequestParts(Answer):
    """The common fields of a request that runs and of one that has ended. Times are seconds."""

    id: str
    node: str
    started: float = Field(description="Seconds since the epoch")
    key: str | None = Field(description="The name of its key; null: it had none, or the key is deleted")
    key_id: str | None
    model: str | None = Field(description="null: it named no known model")
    replica: str | None = Field(description="The replica that was asked last; null: none was")
    path: str
    stream: bool
    first_token: float | None = Field(description="From the request's head to the first content of a stream")
    output_tokens: int | None


class EndedRequest(RequestParts):
    """A request that has ended; null: not known, or there was none."""

    status: int = Field(description="499: the client left before its answer began")
    code: str | None = Field(description="The code of its error; null: the answer is complete")
    client_left: bool
    waited: Waits
    per_token: float | None = Field(description="Between two tokens of a stream")
    tokens_per_second: float | None
    total: float
    prompt_tokens: int | None
    cached_tokens: int | None = Field(description="Tokens of the prompt that were in the engine's cache")
    exact: bool = Field(description="false: the engine did not report tokens, and output_tokens is an estimate")
    bytes_in: int
    bytes_out: int


class RunningRequest(RequestParts):
    """A request that has not ended. Its output_tokens are the events of its stream until now."""

    seconds: float
    waits_for: Literal["load", "recovery", "permit", "quota"] | None


class AbortedRequest(Answer):
    """A request that was aborted."""

    id: str
    aborted: bool


class Usage(Answer):
    """The sum of some requests. It has the fields of its groups: model, key and key_id, path, status, time."""

    node: str
    time: int | None = Field(default=None, description="Begin of the minute, hour or day in seconds since the epoch")
    model: str | None = None
    key: str | None = None
    key_id: str | None = None
    path: str | None = None
    status: int | None = None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    estimated: int = Field(description="Answers whose tokens the engine did not report: only their output is estimated")
    seconds: float
    first_token_p50: float | None
    first_token_p95: float | None
    per_token_p50: float | None
    per_token_p95: float | None


class RateSeries(Answer):
    """The rates of requests, a value for each time; null: there was no request."""

    in_flight: list[float]
    waiting: list[float]
    requests_per_second: list[float] = Field(description="Requests that ended")
    prompt_tokens_per_second: list[float]
    output_tokens_per_second: list[float]
    first_token_p50: list[float | None]
    first_token_p95: list[float | None]


class Stats(Answer):
    """The rates over time; each list has a value for each time of `t`."""

    node: str
    step: float = Field(description="Least seconds between two points")
    t: list[float] = Field(description="Seconds since the epoch; the values are those of the time before")
    all: RateSeries
    models: dict[str, RateSeries]
    host: dict[str, list[float | None]] = Field(
        description="cpu: a share of all processors; memory: bytes in use; gpu0_utilization, gpu0_memory: of a GPU"
    )
