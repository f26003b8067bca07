"""The answers of ``GET /v1/stats``: made and compressed once for all readers between two samples."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import msgspec

from xinference.api.compression import MIN_BYTES, pack
from xinference.records.rates import Rates, columns
from xinference.records.record import LOCAL_NODE

#: Maximum number of answers that are kept, one for each query.
MAX_KEPT = 16
Query = tuple[float, float, str | None]
"""Seconds of a point, the time after which the points are, and the model or None for all of them."""


@dataclass(frozen=True, slots=True)
class RateAnswer:
    """One answer."""

    body: bytes
    """JSON."""
    tag: str
    """The value of ``ETag``."""
    packed: bytes | None
    """The body with gzip; None: it is too short for that."""


class RateAnswers:
    """The newest answers. Used from one event loop, so it needs no lock."""

    def __init__(self) -> None:
        self._samples = -1
        self._answers: dict[Query, RateAnswer] = {}

    def read(self, rates: Rates, query: Query) -> RateAnswer:
        """The answer to a query."""
        if self._samples != rates.samples or len(self._answers) >= MAX_KEPT:
            self._answers.clear()
        self._samples = rates.samples
        found = self._answers.get(query)
        if found is None:
            found = self._answers[query] = _answer(rates, *query)
        return found


def _answer(rates: Rates, step: float, since: float, model: str | None) -> RateAnswer:
    points = rates.points(step, since)
    known = {name for point in points for name in point.models if name}
    models = sorted(known) if model is None else [model]
    body = msgspec.json.encode({"node": LOCAL_NODE, "step": step, **columns(points, models)})
    packed = pack(body) if len(body) >= MIN_BYTES else None
    return RateAnswer(body, f'"{zlib.crc32(body):08x}{len(body):x}"', packed)


def is_known(tag: str, header: str | None) -> bool:
    """Whether the header ``If-None-Match`` names the tag."""
    return header is not None and tag in {each.strip().removeprefix("W/") for each in header.split(",")}
