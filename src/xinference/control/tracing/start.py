"""Starts the traces of a server, if OpenTelemetry's variables name a receiver."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from xinference.config import Settings
from xinference.control.tracing import exporter
from xinference.records.hub import RecordHub
from xinference.records.trace import Sampling, sampling_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracing:
    """The traces of a server that sends them."""

    sampling: Sampling
    sender: exporter.SpanSender
    task: asyncio.Task[None]

    async def close(self) -> None:
        """Send the last spans."""
        self.task.cancel()
        await self.sender.close()


def start_tracing(settings: Settings, hub: RecordHub, env: Mapping[str, str] = os.environ) -> Tracing | None:
    """Make a span of each traced request from now on; None: no request is traced."""
    sampling = sampling_of(env)
    if sampling is None:
        return None
    if not exporter.is_installed():
        log.warning(exporter.MISSING)
        return None
    sender = exporter.SpanSender(settings)
    hub.subscribe(sender.note)
    return Tracing(sampling, sender, asyncio.create_task(sender.run(), name="spans"))
