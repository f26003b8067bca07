"""The input of planning that does not come from the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xinference.catalog.models import ModelFamily
from xinference.engines.base import Engine
from xinference.environments.environments import EnvironmentEntry
from xinference.hardware.devices import Host


@dataclass(frozen=True)
class Facts:
    """Models, engines and hardware that a launch can use."""

    families: Mapping[str, ModelFamily]
    engines: Mapping[str, Engine]
    host: Host
    known_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Engine -> its options and their types; needed only if the request has options."""
    environments: Mapping[str, EnvironmentEntry] = field(default_factory=dict)
    """Engine -> its environment on this host; an engine without an entry needs none."""
