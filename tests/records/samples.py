"""Records for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.records.record import Record

RECORD = Record(
    request_id="p-1",
    started=0.0,
    key_id="k1",
    model="m",
    replica="r0",
    path="/v1/chat/completions",
    stream=False,
    status=200,
    code="",
    client_left=False,
    total=0.5,
    first_token=None,
    prompt_tokens=5,
    cached_tokens=None,
    output_tokens=7,
    exact=True,
    wait_load=0.0,
    wait_recovery=0.0,
    wait_permit=0.0,
    wait_quota=0.0,
    bytes_in=10,
    bytes_out=20,
)


def record(*, ended: float = 0.5, **changes: Any) -> Record:
    """A record of a request that ended at this time."""
    total = changes.get("total", RECORD.total)
    return msgspec.structs.replace(RECORD, started=ended - total, **changes)
