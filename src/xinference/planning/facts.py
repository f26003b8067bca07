"""What planning knows of the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xinference.catalog.models import ModelFamily
from xinference.engines.base import Engine
from xinference.hardware.devices import Host


@dataclass(frozen=True)
class Facts:
    """What the planner is told of the world."""

    families: Mapping[str, ModelFamily]
    engines: Mapping[str, Engine]
    host: Host
    known_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Engine -> the native options it knows, with their types; needed only where options are given."""
