"""The launch in the context of a running replica, from which a later server can adopt the replica."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import ModelVersion, Source
from xinference.launch.plan import LaunchDraft, LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest


def encode_launch(plan: LaunchPlan) -> dict[str, Any]:
    """The launch as JSON."""
    launch = plan.launch if isinstance(plan, SizedPlan) else plan
    draft, origin = launch.draft, launch.origin
    return {
        "request": msgspec.to_builtins(draft.request),
        "version": msgspec.to_builtins(draft.version),
        "engine": draft.engine,
        "use_gpu": draft.use_gpu,
        "threads": draft.threads,
        "options": dict(launch.options),
        "path": str(origin) if isinstance(origin, Path) else None,
        "source": None if isinstance(origin, Path) else msgspec.to_builtins(origin),
    }


def decode_launch(uid: str, stored: Any) -> ResolvedLaunch | None:
    """The launch that `encode_launch` has written; None: another release wrote it."""
    if not isinstance(stored, Mapping):
        return None
    try:
        options = dict(stored["options"])
        draft = LaunchDraft(
            uid,
            msgspec.convert(stored["request"], LaunchRequest),
            msgspec.convert(stored["version"], ModelVersion),
            msgspec.convert(stored["engine"], str),
            msgspec.convert(stored["use_gpu"], bool),
            msgspec.convert(stored["threads"], int),
            options,
        )
        path = stored["path"]
        origin = msgspec.convert(stored["source"], Source) if path is None else Path(path)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return None
    return ResolvedLaunch(draft, origin, options)
