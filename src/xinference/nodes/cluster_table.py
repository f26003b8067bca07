"""The table that the supervisor sends to all nodes, the newest to each node that joins."""

from __future__ import annotations

import msgspec


class ClusterTable(msgspec.Struct, frozen=True):
    """What each node needs to know of the others."""

    removed: tuple[str, ...] = ()
    """The nodes whose certificates are refused."""


def decode_table(data: bytes) -> ClusterTable:
    """Read a table.

    Raises:
        msgspec.DecodeError: it is damaged.
    """
    return _DECODER.decode(data)


_DECODER = msgspec.msgpack.Decoder(ClusterTable)
