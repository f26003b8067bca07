"""Hostile requests through the checks of the gateway and each dialect: a refusal by type, or a body that was judged."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from tests.fakes.record import Recorded
from tests.gateway.harness import route
from tests.hostile.canaries import Canaries
from tests.hostile.generator import Generator, HostileRequest
from tests.hostile.judge import Judge
from tests.support.examples import examples
from xinference.engines.dialects import DIALECTS
from xinference.gateway.engine_requests import prepare
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.request_reader import BYTE_ORDER_MARK
from xinference.gateway.responses.request import translate
from xinference.gateway.routes import DATA_PATHS, RESPONSE_AS_CHAT
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.routing.table import RoutingTable

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", examples(300)))
TRAPS = Canaries(port=45_679, file=Path("/nowhere/canary-file.png"))


def prepared(request: HostileRequest, engine: str) -> Recorded | None:
    """What would reach the engine; None: the request is refused."""
    path, body = DATA_PATHS[request.path], request.body.removeprefix(BYTE_ORDER_MARK)
    try:
        checked = check(path.decoder, body)
        if path.is_response:
            path = RESPONSE_AS_CHAT
            body = msgspec.json.encode(translate(msgspec.json.decode(body), []).chat)
            checked = check(path.decoder, body)
        if path.is_split:
            return None  # the gateway makes the bodies of its parts
        call = prepare(RoutingTable(), route(engine=engine), checked, RequestDocument(body))
    except (msgspec.ValidationError, RecursionError):
        return None  # the gateway refuses the body as unreadable
    except Refusal as refusal:
        assert 400 <= refusal.status < 500 and refusal.code != "internal_error", refusal
        return None
    return Recorded(path.upstream, {"authorization": "Bearer key"}, call.body)


@pytest.mark.parametrize("engine", sorted(DIALECTS))
@pytest.mark.timeout(60 + REQUESTS // 10)
def test_every_request_is_refused_by_type_or_becomes_a_body_that_was_judged(engine: str) -> None:
    generator, judge = Generator(SEED, ("m",), TRAPS), Judge(engine, TRAPS)
    passed = 0
    for number in range(REQUESTS):
        request = generator.request(number)
        arrived = prepared(request, engine)
        if arrived is not None:
            passed += 1
            assert judge.fault(arrived) is None, (number, request.kinds, judge.fault(arrived))
    # Else the requests are too far from what an engine gets to find anything.
    assert passed > REQUESTS / 5


def test_a_request_follows_from_its_seed_and_its_number() -> None:
    first, again, other = (Generator(seed, ("m",), TRAPS) for seed in (1, 1, 2))
    assert [first.request(n) for n in range(20)] == [again.request(n) for n in range(20)]
    assert [first.request(n) for n in range(20)] != [other.request(n) for n in range(20)]
