"""Routes for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xinference.routing.table import Route, Target

#: A replica that nothing listens at.
TARGET = Target("r1", "http://127.0.0.1:1", "key")


def route(*targets: Target, uid: str = "m", **changes: Any) -> Route:
    """A chat model's route on llama.cpp, with these fields changed."""
    made = Route(
        uid, engine="llama.cpp", model_type="LLM", model_name=uid, context_length=4096, created=0.0, targets=targets
    )
    return replace(made, **changes)
