from __future__ import annotations

import pytest

from tests.support.cases import check_each


def test_cases_that_hold_pass() -> None:
    seen: list[int] = []
    check_each(range(3), seen.append)
    assert seen == [0, 1, 2]


def test_all_failures_are_raised_together_and_each_names_its_case() -> None:
    def check(number: int) -> None:
        with pytest.raises(ZeroDivisionError):
            _ = 1 / number
        assert number != 7

    with pytest.raises(BaseExceptionGroup) as caught:
        check_each([1, 0, 2], check, lambda number: f"number {number}")
    assert caught.value.message == "2 of 3 cases failed"
    assert [error.__notes__ for error in caught.value.exceptions] == [["the case: number 1"], ["the case: number 2"]]


def test_no_case_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="no case"):
        check_each([], print)
