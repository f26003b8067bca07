"""Follows the logs of replicas: checks the size of each twice per second, and reads a log only if it has grown.

The log of another node is read twice a second: its link has no cheaper question.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from xinference.control.linked_log import LinkedLog
from xinference.control.stop_notice import StopNotice
from xinference.errors import SERVER_STOPPING
from xinference.log_position import LogPosition, Piece
from xinference.process.log_links import heading
from xinference.process.log_reader import has_more, read_from

LOG_POLL_SECONDS = 0.5
Log = Path | LinkedLog
_BEGIN = LogPosition("", 0)


async def follow_log(path: Log, piece: Piece, has_ended: Callable[[], bool], stop: StopNotice) -> AsyncIterator[bytes]:
    """A piece of one log, then what is written to it until its process has ended, and nothing else.

    The client counts these bytes, so the stop of the server is no line of it.
    """
    position = piece.end
    if piece.data:
        yield piece.data
    ends = False
    while not ends:
        ends = has_ended()  # the log is read once more after the end
        async for new in _read_all(path, position):
            position = new.end
            yield new.data
        ends = ends or await stop.sleep(LOG_POLL_SECONDS)


async def follow_logs(
    pieces: Mapping[Log, Piece],
    text: bytes,
    read_logs: Callable[[], Mapping[str, Log]],
    goes_on: Callable[[], bool],
    stop: StopNotice,
) -> AsyncIterator[bytes]:
    """`text`, then the new output of the engines, also of those that are started later, until the deployment's end.

    Where there are several replicas, a line names the one whose output follows. If the server stops first, the last
    line says so. `pieces` are the parts of the logs that `text` has.
    """
    positions = {path: piece.end for path, piece in pieces.items()}
    yield text
    last = next(reversed([*read_logs()]), None)
    follows, stops = True, False
    while follows and not stops:
        stops = await stop.sleep(LOG_POLL_SECONDS)
        follows = goes_on()  # the output is read once more after the end
        paths = read_logs()
        for name, path in paths.items():
            async for new in _read_all(path, positions.get(path, _BEGIN)):
                if name != last and len(paths) > 1:
                    yield heading(labelled(name, path)).encode()
                last, positions[path] = name, new.end
                yield new.data
    if stops:
        yield f"\n{SERVER_STOPPING}\n".encode()


def labelled(name: str, log: Log) -> str:
    """The name of a replica with that of its node, if that is another one."""
    return f"{name} on {log.name}" if isinstance(log, LinkedLog) else name


async def _read_all(path: Log, position: LogPosition) -> AsyncIterator[Piece]:
    """What was written after a place, in pieces."""
    if isinstance(path, LinkedLog):
        async for piece in path.read_all(position):
            yield piece
        return
    while has_more(path, position):
        piece = await asyncio.to_thread(read_from, path, position)
        if not piece.data:
            return
        position = piece.end
        yield piece
