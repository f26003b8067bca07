"""The link of a node to the other nodes, over which it copies weights and offers its own. Imports nothing heavy."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from xinference.hubs.offer import Copy
from xinference.nodes.node import PeerWeights
from xinference.nodes.offered_files import OfferedFiles


class PeerLink:
    """The offers of this node, and the certificate with which it asks others."""

    def __init__(self, context: Callable[[], ssl.SSLContext], offers: OfferedFiles, supervisor_host: str = "") -> None:
        """See `PeerCopy`."""
        self._context = context
        self._supervisor_host = supervisor_host
        self.offers = offers

    def copy(self, weights: PeerWeights) -> Copy:
        """How the files of `weights` are copied to this node."""
        from xinference.nodes.peer_copy import PeerCopy  # http.client is only needed for a copy

        return PeerCopy(weights, self._context, self._supervisor_host)
