"""The metrics of the server that the gateway does not have: those of models, of the machine and of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xinference.config import Settings
from xinference.control.controller import Controller

if TYPE_CHECKING:
    from prometheus_client.core import Metric


async def server_metrics(controller: Controller, settings: Settings) -> list[Metric]:
    """All of them; the machine is read in a thread."""
    # here: the start of the server does not need them
    from xinference.control import machine_metrics, model_metrics, node_metrics

    machine = await machine_metrics.collect(controller, settings)
    return [*model_metrics.collect(controller), *machine, *node_metrics.collect(controller)]
