"""Stores responses in memory, in limited number and time, for requests that continue or read them.

Each gateway process has a store of its own, and a restart empties it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

#: How long a response is kept.
KEPT_SECONDS = 3600.0
#: Bytes of all kept responses together; the oldest go first.
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """One response."""

    owner: str | None
    """The id of the key that asked for it; only this key finds it. None: keys are not required."""
    expires: float
    response: bytes
    items: bytes
    """The items of the conversation up to its end, as JSON: what the next request continues."""

    item_ids: tuple[str, ...] = ()
    """The ids of the items of the response itself."""

    @property
    def size(self) -> int:
        return len(self.response) + len(self.items)


class ResponseStore:
    """The kept responses by id, the oldest first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_bytes: int = MAX_BYTES) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._responses_of_items: dict[str, str] = {}
        self._clock = clock
        self._max_bytes = max_bytes
        self._size = 0

    def keep(self, owner: str | None, response: dict[str, Any], items: list[dict[str, Any]]) -> None:
        """Keep a response and the items that lead to it; one that is larger than the store is not kept."""
        conversation = msgspec.json.encode([*items, *response["output"]])
        ids = tuple(item["id"] for item in response["output"] if "id" in item)
        kept = Kept(owner, self._clock() + KEPT_SECONDS, msgspec.json.encode(response), conversation, ids)
        if kept.size > self._max_bytes:
            return
        self._kept[response["id"]] = kept
        self._responses_of_items.update(dict.fromkeys(ids, response["id"]))
        self._size += kept.size
        self._drop_old()

    def response(self, owner: str | None, response_id: str) -> bytes:
        """The JSON of a response.

        Raises:
            Refusal: 404.
        """
        return self._find(owner, response_id).response

    def items(self, owner: str | None, response_id: str) -> list[dict[str, Any]]:
        """The items that a request continues.

        Raises:
            Refusal: 404.
        """
        items: list[dict[str, Any]] = msgspec.json.decode(self._find(owner, response_id).items)
        return items

    def item(self, owner: str | None, item_id: str) -> dict[str, Any] | None:
        """An item of a kept response by its id; None: it is not kept."""
        self._drop_old()
        kept = self._kept.get(self._responses_of_items.get(item_id, ""))
        if kept is None or kept.owner != owner:
            return None
        output: list[dict[str, Any]] = msgspec.json.decode(kept.response)["output"]
        return next(item for item in output if item.get("id") == item_id)

    def delete(self, owner: str | None, response_id: str) -> None:
        """Delete a response.

        Raises:
            Refusal: 404.
        """
        self._find(owner, response_id)
        self._drop(response_id)

    def _find(self, owner: str | None, response_id: str) -> Kept:
        self._drop_old()
        kept = self._kept.get(response_id)
        if kept is None or kept.owner != owner:
            cause = f"There is no response {response_id[:100]!r}."
            hint = (
                f"Responses are kept for {KEPT_SECONDS / 60:.0f} minutes, unless store is false; send the whole input."
            )
            raise Refusal(Code.RESPONSE_NOT_FOUND, cause, hint=hint, param="previous_response_id")
        return kept

    def _drop_old(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))
            if self._size <= self._max_bytes and self._kept[oldest].expires > now:
                return
            self._drop(oldest)

    def _drop(self, response_id: str) -> None:
        kept = self._kept.pop(response_id)
        self._size -= kept.size
        for item_id in kept.item_ids:
            self._responses_of_items.pop(item_id, None)
