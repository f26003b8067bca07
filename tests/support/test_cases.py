from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import check_each, in_one_test


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


@in_one_test("number", [1, 2])
@in_one_test(("text", "length"), [("a", 1), ("bc", 2)], ids=["one", "two"])
def test_a_fixture_is_given_beside_the_values(number: int, text: str, length: int, tmp_path: Path) -> None:
    assert len(text) == length and number in (1, 2) and tmp_path.is_dir()


def test_values_of_several_decorators_are_combined() -> None:
    seen = []

    @in_one_test("number", [1, 2])
    @in_one_test("text, length", [("a", 1), ("bc", 2)])
    def see(number: int, text: str, length: int) -> None:
        seen.append((number, text, length))

    see()
    assert seen == [(1, "a", 1), (1, "bc", 2), (2, "a", 1), (2, "bc", 2)]


async def test_an_asynchronous_test_is_awaited_with_each_value() -> None:
    seen = []

    @in_one_test("number", [1, 2])
    @in_one_test("text", ["a", "b"])
    async def see(number: int, text: str) -> None:
        seen.append((number, text))

    await see()
    assert seen == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_a_failure_in_one_test_names_the_values() -> None:
    @in_one_test("number", [1, 0, 2], ids=lambda number: f"divided by {number}")
    def divide(number: int) -> None:
        assert 1 / number

    with pytest.raises(BaseExceptionGroup, match="1 of 3 cases failed") as caught:
        divide()
    assert caught.value.exceptions[0].__notes__ == ["the case: divided by 0"]


async def test_a_failure_of_an_asynchronous_test_names_the_values() -> None:
    @in_one_test("number, other", [(1, 1), (1, 2)])
    async def compare(number: int, other: int) -> None:
        assert number == other

    with pytest.raises(BaseExceptionGroup, match="1 of 2 cases failed") as caught:
        await compare()
    assert caught.value.exceptions[0].__notes__ == ["the case: number=1, other=2"]


def test_a_parameter_that_the_test_lacks_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="no parameter 'b'"):
        in_one_test("b", [1])(lambda a: None)
