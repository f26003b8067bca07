"""Check many small cases in one test: the pytest machinery costs more than such a case does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

T = TypeVar("T")


def check_each(cases: Iterable[T], check: Callable[[T], object], name: Callable[[T], str] = repr) -> None:
    """Call `check` with each case, and fail with all failures together; each names its case."""
    failures: list[BaseException] = []
    count = 0
    for case in cases:
        count += 1
        try:
            check(case)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 -- all are raised below
            error.add_note(f"the case: {name(case)}")
            failures.append(error)
    assert count, "there is no case"
    if failures:
        raise BaseExceptionGroup(f"{len(failures)} of {count} cases failed", failures)
