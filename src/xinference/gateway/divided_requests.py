"""Requests with many inputs, which an engine gets in parts, so that no client can hold a model with one request.

An engine that computes all inputs in the order of their arrival would make the other clients wait for the last input
of such a request. Between two parts, their requests have their turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from xinference.engines.dialects import dialect_of
from xinference.error_codes import Code
from xinference.gateway.engine_requests import EngineCall
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Completion, Embeddings, Request, Rerank
from xinference.routing.table import Route

#: Inputs of one part: some for each slot, so that the slots wait for the gateway rarely.
INPUTS_PER_SLOT, LEAST_INPUTS = 4, 8

Fields = dict[str, Raw]
PreparePart = Callable[[Request, bytes], EngineCall]


@dataclass(frozen=True, slots=True)
class Division:
    """How one request is divided."""

    request: Request
    body: bytes
    """The request as the client sent it."""
    size: int
    """The most inputs of a part."""
    prepare: PreparePart
    """Makes the engine's request of a part."""


def part_size(route: Route, *, prompts: bool = False) -> int | None:
    """The most inputs of a request to the engine of a route; None: the engine gives each request its turn itself.

    Args:
        prompts: whether the inputs are prompts of a completion.
    """
    dialect = dialect_of(route.engine)
    if not dialect.computes_in_order and not (prompts and dialect.computes_prompts_in_order):
        return None
    return max(LEAST_INPUTS, INPUTS_PER_SLOT * route.slots)


def divide(request: Request, body: bytes, route: Route, prepare: PreparePart) -> Division | None:
    """How a request is divided; None: it is sent as it is.

    Raises:
        Refusal: 400, a streamed answer would need more than one part.
    """
    inputs = getattr(request, _field(request))
    if not isinstance(inputs, list) or len(inputs) <= 1 or _is_tokens(request, inputs):
        return None
    size = part_size(route, prompts=isinstance(request, Completion))
    if size is not None and isinstance(request, Completion):
        size = max(1, size // (request.n or 1))
    if size is None or len(inputs) <= size:
        return None
    if isinstance(request, Completion) and request.stream:
        cause = f"prompt: a streamed request to the model {route.uid!r} has at most {size} prompts, not {len(inputs)}."
        raise Refusal(Code.UNSUPPORTED_FIELD, cause, hint="Leave out stream, or send several requests.", param="prompt")
    return Division(request, body, size, prepare)


def _field(request: Request) -> str:
    """The field with the inputs."""
    return "prompt" if isinstance(request, Completion) else "input" if isinstance(request, Embeddings) else "documents"


def _is_tokens(request: Request, inputs: list[Any]) -> bool:
    """Whether a list is one input: the ids of its tokens."""
    return not isinstance(request, Rerank) and isinstance(inputs[0], int)


def parts(division: Division) -> list[tuple[Request, bytes]]:
    """The parts of a request, each with its body."""
    name = _field(division.request)
    fields: Fields = msgspec.json.decode(division.body, type=Fields)
    inputs = msgspec.json.decode(fields[name], type=list[Raw])
    given = getattr(division.request, name)
    if isinstance(division.request, Rerank):
        fields.pop("top_n", None)  # of all documents, not of a part
    return [
        (
            msgspec.structs.replace(division.request, **{name: given[start : start + division.size]}),
            msgspec.json.encode(fields | {name: inputs[start : start + division.size]}),
        )
        for start in range(0, len(inputs), division.size)
    ]


def join(division: Division, answers: list[bytes]) -> bytes:
    """One answer of those of the parts, whose entries are numbered anew.

    Raises:
        msgspec.ValidationError, KeyError: an answer has no known form.
    """
    request, size = division.request, division.size
    if isinstance(request, Completion):
        return _joined(answers, "choices", size * (request.n or 1))
    if isinstance(request, Embeddings):
        return _joined(answers, "data", size)
    assert isinstance(request, Rerank)
    if answers[0].lstrip()[:1] == b"[":  # the form of the path /rerank
        entries = _ranked([msgspec.json.decode(answer, type=list[Fields]) for answer in answers], request, size)
        return msgspec.json.encode(entries)
    return _joined(answers, "results", size, request)


def _joined(answers: list[bytes], name: str, step: int, ranked: Rerank | None = None) -> bytes:
    decoded = [msgspec.json.decode(answer, type=Fields) for answer in answers]
    entries = [msgspec.json.decode(answer[name], type=list[Fields]) for answer in decoded]
    whole: dict[str, Any] = dict(decoded[0])
    whole[name] = _ranked(entries, ranked, step) if ranked is not None else _numbered(entries, step)
    if "usage" in whole:
        whole["usage"] = _sum([msgspec.json.decode(answer["usage"]) for answer in decoded])
    return msgspec.json.encode(whole)


def _numbered(parts: list[list[Fields]], step: int) -> list[Fields]:
    """The entries of all parts with their numbers in the whole; each part has `step` numbers."""
    return [
        entry | {"index": Raw(b"%d" % (msgspec.json.decode(entry["index"], type=int) + n * step))}
        for n, entries in enumerate(parts)
        for entry in entries
    ]


def _ranked(parts: list[list[Fields]], request: Rerank, step: int) -> list[Fields]:
    """The best documents of all parts, the best one first."""

    def score(entry: Fields) -> float:
        value = entry["relevance_score"] if "relevance_score" in entry else entry["score"]
        return msgspec.json.decode(value, type=float)

    return sorted(_numbered(parts, step), key=score, reverse=True)[: request.top_n]


def _sum(counts: list[Any]) -> Any:
    """The sum of counts, also of those in objects; of anything else the first."""
    first = counts[0]
    if isinstance(first, dict):
        return {name: _sum([each[name] for each in counts if name in each]) for name in first}
    return sum(counts) if isinstance(first, int) and not isinstance(first, bool) else first
