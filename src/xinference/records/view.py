"""The JSON forms of records, requests and totals, as the management API returns them."""

from __future__ import annotations

from typing import Any

from xinference.records.amounts import Amounts
from xinference.records.record import LOCAL_NODE, Record


def record_view(record: Record, key_name: str | None) -> dict[str, Any]:
    """One request that has ended. Times are seconds; null: not known, or there was none."""
    each = record.per_token
    return {
        "id": record.request_id,
        "node": record.node,
        "started": record.started,
        "key": key_name,
        "key_id": record.key_id or None,
        "model": record.model or None,
        "replica": record.replica or None,
        "path": record.path,
        "stream": record.stream,
        "status": record.status,
        "code": str(record.code) or None,
        "client_left": record.client_left,
        "waited": {
            "load": record.wait_load,
            "recovery": record.wait_recovery,
            "permit": record.wait_permit,
            "quota": record.wait_quota,
        },
        "first_token": record.first_token,
        "per_token": each,
        "tokens_per_second": 1 / each if each else None,
        "total": record.total,
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "exact": record.exact,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
    }


def amounts_view(amounts: Amounts) -> dict[str, Any]:
    """The sum of some requests."""
    first, each = amounts.first_token, amounts.per_token
    return {
        "node": LOCAL_NODE,
        "requests": amounts.requests,
        "prompt_tokens": amounts.prompt,
        "cached_tokens": amounts.cached,
        "output_tokens": amounts.output,
        "estimated": amounts.estimated,
        "seconds": amounts.seconds.total,
        "first_token_p50": first.quantile(0.5) if first else None,
        "first_token_p95": first.quantile(0.95) if first else None,
        "per_token_p50": each.quantile(0.5) if each else None,
        "per_token_p95": each.quantile(0.95) if each else None,
    }
