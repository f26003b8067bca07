"""The newest environment of an engine."""

from __future__ import annotations

from xinference.environments.lock import read_locks
from xinference.environments.spec import EnvironmentSpec


def newest_spec(engine: str, accelerator: str) -> EnvironmentSpec | None:
    """The newest environment that is shipped for an engine, or None."""
    matching = (
        lock.spec for lock in read_locks() if (lock.recipe.engine, lock.recipe.accelerator) == (engine, accelerator)
    )
    return next(matching, None)
