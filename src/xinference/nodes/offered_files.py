"""The files that this node offers to others, by the digest of their content. Only these can be asked for."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from xinference.hubs.offer import Offer

#: Maximum number of offers; the oldest is forgotten, and its files are offered again when the supervisor asks.
MAX_OFFERS = 1024


class OfferedFiles:
    """Offers by digest. A name that a peer sends is looked up here, and is never part of a path."""

    def __init__(self) -> None:
        self._offers: OrderedDict[str, Offer] = OrderedDict()

    def add(self, offer: Offer) -> str:
        """Offer files; returns their digest."""
        digest = offer.digest
        self._offers[digest] = offer
        self._offers.move_to_end(digest)
        if len(self._offers) > MAX_OFFERS:
            self._offers.popitem(last=False)
        return digest

    def path(self, digest: str, name: str) -> Path | None:
        """The path of an offered file; None: it is not offered."""
        offer = self._offers.get(digest)
        return None if offer is None else offer.files.get(name)
