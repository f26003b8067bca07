"""Sends the requests that become several requests of the engine, and joins their answers."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.gateway.divided_requests import Division, join, part_size, parts
from xinference.gateway.engine_answers import ODD_ANSWER, odd_answer
from xinference.gateway.forward import ForwardedCall, Forwarder
from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.request_figures import RequestFigures
from xinference.gateway.recorded_reply import RecordedReply
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Document, Request, Score, ScoreTexts, TokenIds, text_of
from xinference.routing.table import Route

#: The pairs of fields of a score's request.
_PAIRS = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))


async def forward_split(
    forwarder: Forwarder, call: ForwardedCall, request: Request, route: Route, reply: Reply
) -> None:
    """Forward the parts of a request one after the other, and send the joined answer.

    Raises:
        Refusal: 400, the request compares no texts; any refusal of a part.
    """
    engine = _Parts(forwarder, call, route, reply.figures)
    if isinstance(request, Score):
        answer: Any = await _scores(engine, request, route)
    else:
        assert isinstance(request, TokenIds)
        answer = await _token_texts(engine, request)
    body = reply.figures.first = msgspec.json.encode(answer)
    await reply.whole(200, body)


async def forward_divided(
    forwarder: Forwarder, call: ForwardedCall, division: Division, route: Route, reply: Reply
) -> None:
    """Forward the parts of a request with many inputs one after the other, and send the joined answer.

    Raises:
        Refusal: any refusal of a part; 502, an engine's answer has no known form.
    """
    answers = []
    for request, body in parts(division):
        prepared = division.prepare(request, body)
        recorded = RecordedReply(reply.figures)
        part = msgspec.structs.replace(call, body=prepared.body, answer=prepared.answer, division=None)
        await forwarder.forward(part, forwarder.newest(route), recorded.reply)
        answers.append(recorded.body)
    try:
        joined = join(division, answers)
    except ODD_ANSWER as error:
        raise odd_answer(route.uid, f"in a form that cannot be read: {type(error).__name__}") from error
    reply.figures.first = joined
    await reply.whole(200, joined)


class _Parts:
    """Asks the engine for the parts of one request."""

    def __init__(self, forwarder: Forwarder, call: ForwardedCall, route: Route, figures: RequestFigures) -> None:
        self._forwarder, self._call, self._route, self._figures = forwarder, call, route, figures

    async def ask(self, **fields: Any) -> Any:
        """The engine's answer to one part.

        Raises:
            Refusal: 502, the answer is not JSON.
        """
        recorded = RecordedReply(self._figures)
        body = msgspec.json.encode({"model": self._route.uid, **fields})
        call, route = msgspec.structs.replace(self._call, body=body), self._forwarder.newest(self._route)
        await self._forwarder.forward(call, route, recorded.reply)
        try:
            return msgspec.json.decode(recorded.body)
        except ODD_ANSWER as error:
            raise self.odd_answer(error) from error

    def odd_answer(self, error: Exception) -> Refusal:
        """The refusal for an answer whose form is not that of the engine's answers."""
        return odd_answer(self._route.uid, f"in a form that cannot be read: {type(error).__name__}")


# -- token ids --------------------------------------------------------------------------------------------------


async def _token_texts(engine: _Parts, request: TokenIds) -> list[Any]:
    """The text of each id, in the form of the request: a list, or lists."""
    lists = [ids if isinstance(ids, list) else [ids] for ids in request.input]
    texts: dict[int, Any] = {}
    for number in sorted({number for ids in lists for number in ids}):
        answer = await engine.ask(tokens=[number])
        try:
            # Engines name the text ``content``, ``prompt`` or ``text``.
            texts[number] = answer.get("content", answer.get("prompt", answer.get("text")))
        except ODD_ANSWER as error:
            raise engine.odd_answer(error) from error
    return [[texts[number] for number in ids] if isinstance(ids, list) else texts[ids] for ids in request.input]


# -- scores -----------------------------------------------------------------------------------------------------


async def _scores(engine: _Parts, request: Score, route: Route) -> dict[str, Any]:
    """The score of each pair: an engine ranks the texts of all pairs with the same query in one request."""
    queries, documents = score_pairs(request)
    scores: list[float] = [0.0] * len(documents)
    total = 0
    for query in dict.fromkeys(queries):
        of_query = [n for n, other in enumerate(queries) if other == query]
        size = part_size(route) or len(of_query)
        for places in (of_query[start : start + size] for start in range(0, len(of_query), size)):
            answer = await engine.ask(query=query, documents=[documents[n] for n in places])
            try:
                total += (answer.get("usage") or {}).get("total_tokens", 0)
                for result in answer["results"]:
                    scores[places[result["index"]]] = float(result["relevance_score"])
            except ODD_ANSWER as error:
                raise engine.odd_answer(error) from error
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": route.uid,
        "data": [{"index": n, "object": "score", "score": score} for n, score in enumerate(scores)],
        "usage": {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0},
    }


def score_pairs(request: Score) -> tuple[list[str], list[str]]:
    """The queries and the documents of a score's request, pair by pair; one query is compared with all documents.

    Raises:
        Refusal: 400, a field is missing, or the numbers of texts do not fit.
    """
    for first, second in _PAIRS:
        left, right = getattr(request, first), getattr(request, second)
        if left is not None and right is not None:
            queries, documents = _texts(left, first), _texts(right, second)
            break
    else:
        cause = "text_1 and text_2 are required, or queries and documents."
        raise Refusal(Code.INVALID_REQUEST, cause, param="text_1")
    if len(queries) == 1:
        queries *= len(documents)
    if len(queries) != len(documents):
        cause = f"{first} has {len(queries)} texts and {second} {len(documents)}: they must be as many, or {first} one."
        raise Refusal(Code.INVALID_REQUEST, cause, param=first)
    return queries, documents


def _texts(texts: ScoreTexts, param: str) -> list[str]:
    each = [texts] if isinstance(texts, (str, Document)) else texts
    return [text_of(text, f"{param}[{n}]") for n, text in enumerate(each)]
