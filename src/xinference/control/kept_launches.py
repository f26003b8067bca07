"""The stored launches, in the form of a request for the same launch. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest, decode_request
from xinference.store.database import DeploymentRow

#: Fields that follow from others: a request has the name by which the model was asked for instead.
_DERIVED = frozenset({"family", "asked_name", "asked", "options"})


@dataclass(frozen=True)
class KeptLaunch:
    """One launch that the store keeps."""

    uid: str
    fields: dict[str, Any]
    """The fields of the same launch for ``POST /v1/models``, without those that have their default."""
    created: float
    """The time of the launch, in seconds since the epoch."""
    is_restored: bool
    """The next server restores it."""


def read_kept(rows: Iterable[DeploymentRow]) -> list[KeptLaunch]:
    """The launches of these rows, oldest first, without the rows whose request can't be read."""
    return [
        KeptLaunch(row.uid, launch_fields(request), row.created, row.wanted)
        for row in rows
        if (request := _request(row)) is not None
    ]


def launch_fields(request: LaunchRequest) -> dict[str, Any]:
    """The fields of a request for the same launch."""
    plain = LaunchRequest(model_name="")
    fields = {
        name: value
        for name in request.__struct_fields__
        if name not in _DERIVED and (value := getattr(request, name)) != getattr(plain, name)
    }
    asked = {"model_name": request.asked_name or request.model_name, "model_type": request.model_type}
    launch: dict[str, Any] = msgspec.to_builtins({**request.options, **fields, **asked})
    return launch


def stored_request(row: DeploymentRow) -> LaunchRequest:
    """The request of a row.

    Raises:
        Problem: 500 ``unreadable_row``.
    """
    try:
        return decode_request(row.request)
    except ValueError as error:
        raise Problem(
            Code.UNREADABLE_ROW, f"The stored request of {row.uid} can't be read: {error}.", hint="Launch it again."
        ) from None


def _request(row: DeploymentRow) -> LaunchRequest | None:
    try:
        return stored_request(row)
    except Problem:
        return None
