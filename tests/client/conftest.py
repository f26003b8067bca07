from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.cli.canned import Canned, serving
from tests.client.either import FLAVOURS, Either, make_either


@pytest.fixture
def canned() -> Iterator[Canned]:
    with serving() as server:
        yield server


@pytest.fixture(params=FLAVOURS)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Either]]:
    """Makes clients, of either kind."""
    with asyncio.Runner() as loop:
        made: list[Either] = []
        make = make_either(request.param, loop)

        def kept(*args: object, **kwargs: object) -> Either:
            made.append(make(*args, **kwargs))
            return made[-1]

        yield kept
        for each in made:
            each.close()


@pytest.fixture
def client(connect: Callable[..., Either], canned: Canned) -> Either:
    """A client of either kind."""
    return connect(canned.url)
