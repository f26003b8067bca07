"""What every deployment works with: services of the server, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from xinference.config import Settings
from xinference.deployments.admission import Admission
from xinference.engines.base import Engine
from xinference.hubs.base import Hub
from xinference.store.database import Store
from xinference.store.event_log import EventLog


@dataclass(frozen=True)
class DeploymentContext:
    """What every deployment works with."""

    settings: Settings
    store: Store
    events: EventLog
    hubs: Mapping[str, Hub]
    engines: Mapping[str, Engine]
    changed: Callable[[], None]
    """Publishes a new routing table."""
    admission: Admission
    """Who else takes memory."""


Ending = Literal["terminate", "stop", "detach"]
"""``terminate`` and ``stop`` end the engines, ``detach`` leaves them for a successor."""
