"""TLS for the connections of a gateway to other nodes. A server on one machine never makes one."""

from __future__ import annotations

import ssl
from pathlib import Path


class ClusterTls:
    """A `NodeTls`: the context of this machine's certificate, made again after each renewal.

    Args:
        folder: that of the `NodeIdentity`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: tuple[int, ssl.SSLContext] | None = None

    def __call__(self) -> ssl.SSLContext:
        """The context for a new connection; called for each connection, not for each request."""
        from xinference.nodes.certificates import NodeIdentity  # only a cluster needs `cryptography`

        identity = NodeIdentity(self._folder)
        written = identity.certificate_path.stat().st_mtime_ns
        if self._made is None or self._made[0] != written:
            self._made = written, identity.client_context()
        return self._made[1]
