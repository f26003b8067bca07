"""A gateway process's doubles of what the server has: the table of routes, the keys, the limits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import MappingProxyType

from xinference.gateway.balancer import Balancer
from xinference.gateway.workers.ipc import (
    Cancel,
    EnsureReady,
    Granted,
    Link,
    Ready,
    Refused,
    SpendTokens,
    Table,
    Taken,
    TakePermit,
    TakeRequest,
    ToWorker,
)
from xinference.keys.key import Key
from xinference.keys.table import KeyTable, table_of
from xinference.routing.table import Route, RoutingTable


class RemoteKeys:
    """A `Keys` that is told what there is."""

    def __init__(self) -> None:
        self.table = KeyTable(required=True)
        self._used: dict[str, float] = {}

    def used(self, key: Key, now: float) -> None:
        """See `Keys.used`."""
        self._used[key.key_id] = now

    def take_used(self) -> dict[str, float]:
        """When keys were used since the last call, by id."""
        used, self._used = self._used, {}
        return used


class Remote:
    """A `Router` and a `Quota` that ask the server; a request asks only for what the table does not say."""

    def __init__(self, link: Link[ToWorker]) -> None:
        self._link = link
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[None]] = {}
        self.table = RoutingTable()
        self.keys = RemoteKeys()
        self.balancer = Balancer()
        """The balancer of this process; its gateway uses it."""

    # -- what the server says -------------------------------------------------------------------------------

    def use(self, table: Table) -> None:
        """Use this table from now on."""
        self.table = RoutingTable(MappingProxyType(table.routes), table.listing)
        self.keys.table = table_of(table.keys, required=table.keys_required)

    def answered(self, answer: Ready | Granted | Refused) -> None:
        """The server's answer to what was asked."""
        future = self._asked.get(answer.number)
        if future is None or future.done():
            return  # `Cancel` is on its way
        if isinstance(answer, Refused):
            future.set_exception(answer.refusal)
        else:
            future.set_result(None)

    async def _ask(self, question: EnsureReady | TakeRequest | TakePermit) -> None:
        """Raises `Refusal`."""
        number = question.number
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._link.send(question)
        try:
            await future
        except asyncio.CancelledError:
            self._link.send(Cancel(number))
            raise
        finally:
            del self._asked[number]

    # -- for the gateway ------------------------------------------------------------------------------------

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        """See `Router.ensure_ready`."""
        end = time.monotonic() + deadline
        while True:
            number = next(self._numbers)
            await self._ask(EnsureReady(number, uid, max(0.0, end - time.monotonic())))
            # After this turn, in which the caller counts its request.
            asyncio.get_running_loop().call_soon(self._taken, number)
            route = self.table.routes.get(uid)
            if route is not None and route.targets:
                return route
            # It has left since then, and the server must not hear of a request to it any more.

    def _taken(self, number: int) -> None:
        self._link.send(Taken(number, self.balancer.counts()))

    async def take_request(self, key: Key, now: float) -> None:
        """See `Quota.take_request`."""
        await self._ask(TakeRequest(next(self._numbers), key, now))

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        """See `Quota.spend_tokens`."""
        self._link.send(SpendTokens(key, tokens, now))

    @asynccontextmanager
    async def permit(self, route: Route) -> AsyncIterator[None]:
        """See `Quota.permit`."""
        if route.request_limits is None:
            yield
            return
        number = next(self._numbers)
        await self._ask(TakePermit(number, route.parent or route.uid, route.request_limits))
        try:
            yield
        finally:
            self._link.send(Cancel(number))
