"""The metrics of the server that the gateway does not know: those of models and of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xinference.config import Settings
from xinference.control.controller import Controller

if TYPE_CHECKING:
    from prometheus_client.core import Metric


async def server_metrics(controller: Controller, settings: Settings) -> list[Metric]:
    """All of them; the machine is read in a thread."""
    from xinference.control import machine_metrics, model_metrics  # here: the start of the server does not need them

    return [*model_metrics.collect(controller), *await machine_metrics.collect(controller, settings)]
