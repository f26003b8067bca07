"""The dialect of the fifth engine: it answers in lower case."""

from __future__ import annotations

from xinference.engines.dialect import Dialect, Exchange
from xinference.protocol.requests import Request

NAME = "Fifth"


def _capitalized(answer: bytes) -> bytes:
    return answer.replace(b"fifth ", b"Fifth ")


def _exchange(request: Request, uid: str) -> Exchange:
    return Exchange(answer=_capitalized)


DIALECT = Dialect(NAME, exchange=_exchange)
