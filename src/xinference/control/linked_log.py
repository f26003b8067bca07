"""Reads the log of an engine on another node over its link, in pieces of limited size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xinference.errors import Problem
from xinference.log_position import LogPosition, Piece
from xinference.nodes.node import Node, node_of


@dataclass(frozen=True)
class LinkedLog:
    """A log file of another node."""

    node_id: str
    path: Path
    name: str = field(compare=False)
    """The name of the node."""
    nodes: Mapping[str, Node] = field(compare=False, repr=False)

    async def read_last_lines(self, lines: int) -> Piece:
        """The last lines.

        Raises:
            Problem: that of the node; 503 ``node_unknown``, ``node_gone``, 504 ``node_timeout``.
        """
        return await node_of(self.nodes, self.node_id).read_log(self.path, lines, None)

    async def read_from(self, position: LogPosition) -> Piece:
        """What was written after a place, at most one piece.

        Raises:
            Problem: as `read_last_lines`.
        """
        return await node_of(self.nodes, self.node_id).read_log(self.path, 0, position)

    async def read_all(self, position: LogPosition) -> AsyncIterator[Piece]:
        """What was written after a place, in pieces. A node that does not answer has nothing new until it does."""
        while True:
            try:
                piece = await self.read_from(position)
            except Problem:
                return
            if not piece.data:
                return
            position = piece.end
            yield piece
