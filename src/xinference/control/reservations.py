"""Names that one task at a time may use, such as the uid of a launch that is being planned."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator


class Reservations:
    """The reserved names. Iteration gives them."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Future[None]] = {}
        """Each future ends with the reservation of its name."""

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Reserve a name while the block runs, after all other reservations of it have ended."""
        while (other := self._held.get(name)) is not None:
            await asyncio.wait({other})
        done = self._held[name] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._held[name]
            done.set_result(None)
