"""The topic of the machine: its memory, GPUs and disks, and their owners."""

from __future__ import annotations

from xinference.control.devices import DeviceReader
from xinference.control.watch.rows import Reading, Row, encode


class DeviceSource:
    """The machine, every 5 s."""

    topic, seconds, is_list = "devices", 5.0, False

    def __init__(self, reader: DeviceReader) -> None:
        self._reader = reader

    async def read(self) -> Reading:
        return Reading((Row("", "devices", encode(await self._reader.read())),))
