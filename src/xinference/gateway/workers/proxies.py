"""Proxies in a gateway process for the server's routing table, keys and quotas."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import MappingProxyType

from xinference.gateway.balancer import Balancer
from xinference.gateway.crash_memory import CrashMemory, RequestKey
from xinference.gateway.workers.ipc import (
    Cancel,
    Channel,
    CrashNote,
    EnsureReady,
    GiveBackRequest,
    Grant,
    LeftNote,
    Ready,
    ReadyAck,
    Rejection,
    SpendTokens,
    TableUpdate,
    TakeKeyPermit,
    TakePermit,
    TakeRequest,
    ToWorker,
)
from xinference.gateway.workers.server_watch import server_hangs
from xinference.keys.key import Key
from xinference.keys.table import KeyTable, table_of
from xinference.routing.table import Route, RoutingTable


class KeysProxy:
    """A `Keys` whose table is the server's."""

    def __init__(self) -> None:
        self.table = KeyTable(required=True)
        self._uses: dict[str, float] = {}

    def used(self, key: Key, now: float) -> None:
        self._uses[key.key_id] = now
        if key.session:
            self._uses[key.session] = now

    def take_uses(self) -> dict[str, float]:
        """Return the times at which keys were used since the last call, by id."""
        uses, self._uses = self._uses, {}
        return uses


class ServerProxy:
    """A `Router`, a `Quota` and `CrashReports` that send messages to the server if the table can't decide."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[None]] = {}
        self.table = RoutingTable()
        self.keys = KeysProxy()
        self.balancer = Balancer()
        """The balancer of this process; its gateway uses it."""
        self.crashes = CrashMemory(self)
        """The suspected requests of all processes; the server judges."""

    # -- messages of the server -----------------------------------------------------------------------------

    def use(self, update: TableUpdate) -> None:
        """Replace the routing table and the keys."""
        self.table = RoutingTable(MappingProxyType(update.routes), update.listing)
        self.keys.table = table_of(update.keys, required=update.keys_required)

    def resolve(self, answer: Ready | Grant | Rejection) -> None:
        """End the wait for the server's answer to a question."""
        future = self._questions.get(answer.number)
        if future is None or future.done():
            return  # the client has left: the server gets a `Cancel`
        if isinstance(answer, Rejection):
            future.set_exception(answer.refusal)
        else:
            future.set_result(None)

    def refuse_waiting(self) -> None:
        """End the waits for answers of a server that hangs. What it grants later is given back."""
        for number, future in self._questions.items():
            if not future.done():
                future.set_exception(server_hangs())
                self._channel.send(Cancel(number))

    async def _request(self, question: EnsureReady | TakeRequest | TakePermit | TakeKeyPermit) -> None:
        """Wait for the server's answer.

        Raises:
            Refusal: the answer is a `Rejection`, or the server hangs.
        """
        number = question.number
        future = self._questions[number] = asyncio.get_running_loop().create_future()
        self._channel.send(question)
        try:
            await future
        except asyncio.CancelledError:
            self._channel.send(Cancel(number))
            raise
        finally:
            del self._questions[number]

    # -- for the gateway ------------------------------------------------------------------------------------

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        end = time.monotonic() + deadline
        while True:
            number = next(self._numbers)
            await self._request(EnsureReady(number, uid, max(0.0, end - time.monotonic())))
            # Sent after this turn of the event loop, in which the caller counts its request.
            asyncio.get_running_loop().call_soon(self._acknowledge, number)
            route = self.table.routes.get(uid)
            if route is not None and route.targets:
                return route
            # The replica was stopped since then, and the server does not count requests to it: repeat the question.

    def _acknowledge(self, number: int) -> None:
        self._channel.send(ReadyAck(number, self.balancer.counts()))

    def note_crash(self, replica_id: str, key: RequestKey, in_flight: int) -> None:
        self._channel.send(CrashNote(replica_id, key, in_flight))

    def note_left(self, replica_id: str, key: RequestKey) -> None:
        self._channel.send(LeftNote(replica_id, key))

    async def take_request(self, key: Key, now: float) -> None:
        await self._request(TakeRequest(next(self._numbers), key, now))

    def give_back_request(self, key: Key, now: float) -> None:
        self._channel.send(GiveBackRequest(key, now))

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        self._channel.send(SpendTokens(key, tokens, now))

    @asynccontextmanager
    async def permit(self, route: Route) -> AsyncIterator[None]:
        if route.request_limits is None:
            yield
            return
        number = next(self._numbers)
        await self._request(TakePermit(number, route.parent or route.uid, route.request_limits))
        try:
            yield
        finally:
            self._channel.send(Cancel(number))

    @asynccontextmanager
    async def key_permit(self, key: Key, maximum: int) -> AsyncIterator[None]:
        number = next(self._numbers)
        await self._request(TakeKeyPermit(number, key, maximum))
        try:
            yield
        finally:
            self._channel.send(Cancel(number))
