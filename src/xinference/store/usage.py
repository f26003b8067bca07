"""The stored usage: the totals of each minute by model, key, path and status, for 30 days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from xinference.errors import Problem
from xinference.records.amounts import FIRST_TOKEN_BUCKETS, PER_TOKEN_BUCKETS, Amounts, Histogram
from xinference.records.totals import MinuteTotals
from xinference.store.database import Store
from xinference.store.row_types import MAX_TEXT

KEPT_MINUTES = 30 * 24 * 60

#: What totals can be grouped by -> the expression of the group.
GROUPS = {
    "model": "model",
    "key": "key_id",
    "path": "path",
    "status": "status",
    "minute": "minute",
    "hour": "minute / 60 * 60",
    "day": "minute / 1440 * 1440",
}
Group = Literal["model", "key", "path", "status", "minute", "hour", "day"]

_FIRST = [f"first_{n}" for n in range(len(FIRST_TOKEN_BUCKETS) + 1)]
_EACH = [f"each_{n}" for n in range(len(PER_TOKEN_BUCKETS) + 1)]
_SUMS = [
    *("requests", "prompt_tokens", "cached_tokens", "output_tokens", "estimated"),
    *("seconds", "first_seconds", "each_seconds", *_FIRST, *_EACH),
]
_COLUMNS = ["minute", "model", "key_id", "path", "status", *_SUMS]
#: A row with a larger number of requests, tokens or seconds than this is damaged.
MAX_AMOUNT = 1 << 50
#: The condition for rows that are not damaged: one damaged row would make the sum of a column an error or infinite.
_WHOLE = " AND ".join(
    [
        f"minute < {1 << 32}",
        *(f"typeof({name}) = 'text' AND length({name}) <= {MAX_TEXT}" for name in ("model", "key_id", "path")),
        *(
            f"typeof({name}) IN ('integer', 'real') AND {name} BETWEEN 0 AND {MAX_AMOUNT}"
            for name in ("status", *_SUMS)
        ),
    ]
)
_INSERT = f"INSERT INTO usage_minutes({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 -- the columns are constants


def add_usage(store: Store, totals: Iterable[MinuteTotals], now: float) -> None:
    """Store the totals of minutes in one transaction, and delete those that are older than `KEPT_MINUTES`.

    Raises:
        Problem: the rows cannot be written.
    """
    rows = [
        (each.minute, subject.model, subject.key_id, subject.path, subject.status, *_sums(amounts))
        for each in totals
        for subject, amounts in each.amounts.items()
    ]
    with store.write() as db:
        db.executemany(_INSERT, rows)
        db.execute("DELETE FROM usage_minutes WHERE minute < ?", (int(now) // 60 - KEPT_MINUTES,))


def read_usage(
    store: Store, groups: Sequence[Group], begin: int, end: int, *, key_id: str | None = None, model: str | None = None
) -> dict[tuple[Any, ...], Amounts]:
    """The stored totals by the values of `groups`; damaged rows are not counted.

    Args:
        begin, end: the first minute, and the minute after the last one.
        key_id: of this key only; None: of all keys.
        model: of this model only; None: of all models.

    Raises:
        Problem: the rows cannot be read.
    """
    by = [GROUPS[group] for group in groups]
    columns = ", ".join([*by, *(f"sum({name})" for name in _SUMS)])
    conditions = ["minute >= ?", "minute < ?"]
    parameters: list[Any] = [begin, end]
    for name, value in (("key_id", key_id), ("model", model)):
        if value is not None:
            conditions.append(f"{name} = ?")
            parameters.append(value)
    group = f" GROUP BY {', '.join(map(str, range(1, len(by) + 1)))}" if by else ""
    query = f"SELECT {columns} FROM usage_minutes WHERE {' AND '.join(conditions)}"  # noqa: S608 -- the columns are constants
    rows = _plausible_rows(store, f"{query}{group}", parameters, len(by))
    if rows is None:  # rare, and takes three times as long
        _report_damaged(store, begin, end)
        rows = store.read(f"{query} AND {_WHOLE}{group}", parameters)
    return {row[: len(by)]: _amounts(row[len(by) :]) for row in rows if row[len(by)] is not None}


def _plausible_rows(store: Store, query: str, parameters: Sequence[Any], groups: int) -> list[tuple[Any, ...]] | None:
    """The rows of a query with sums after the groups; None: a damaged row makes a sum an error, or impossible."""
    try:
        rows = store.read(query, parameters)
    except Problem:
        return None
    counts = [value for row in rows for value in row[groups:] if value is not None]
    plausible = all(isinstance(value, int | float) and 0 <= value <= MAX_AMOUNT for value in counts)
    named = all(_is_name(value) for row in rows for value in row[:groups])
    return rows if plausible and named else None


def _is_name(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_TEXT)


def _report_damaged(store: Store, begin: int, end: int) -> None:
    """Log the first damaged rows of these minutes, each once."""
    query = f"SELECT rowid FROM usage_minutes WHERE minute >= ? AND minute < ? AND NOT ({_WHOLE}) LIMIT 10"  # noqa: S608 -- the condition is a constant
    for (number,) in store.read(query, (begin, end)):
        store.report_damaged("usage_minutes", number, "a value has another type, or is negative or too large")


def _sums(amounts: Amounts) -> tuple[Any, ...]:
    first = amounts.first_token or Histogram(FIRST_TOKEN_BUCKETS)
    each = amounts.per_token or Histogram(PER_TOKEN_BUCKETS)
    return (
        *(amounts.requests, amounts.prompt, amounts.cached, amounts.output, amounts.estimated),
        *(amounts.seconds.total, first.total, each.total, *first.counts, *each.counts),
    )


def _amounts(sums: Sequence[Any]) -> Amounts:
    amounts = Amounts()
    amounts.requests, amounts.prompt, amounts.cached, amounts.output, amounts.estimated = sums[:5]
    amounts.seconds.total = sums[5]
    counts = list(sums[8:])
    first, each = Histogram(FIRST_TOKEN_BUCKETS), Histogram(PER_TOKEN_BUCKETS)
    first.total, each.total = sums[6], sums[7]
    first.counts, each.counts = counts[: len(_FIRST)], counts[len(_FIRST) :]
    amounts.first_token, amounts.per_token = first, each
    return amounts
