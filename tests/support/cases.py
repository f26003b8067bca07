"""Check many small cases in one test: the pytest machinery costs more than such a case does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
#: What `ids` of `pytest.mark.parametrize` may be.
Names = Sequence[object] | Callable[[Any], object] | None


def check_each(cases: Iterable[T], check: Callable[[T], object], name: Callable[[T], str] = repr) -> None:
    """Call `check` with each case, and fail with all failures together; each names its case."""
    failures = Failures()
    for case in cases:
        with failures.of(functools.partial(name, case)):
            check(case)
    failures.report()


def in_one_test(parameters: str | Sequence[str], values: Iterable[Any], ids: Names = None) -> Callable[[Any], Any]:
    """Make one test of all values: `pytest.mark.parametrize` for cases that cost less than a test does.

    All cases get the same fixtures, so a test must not change what a fixture gives. Of several decorators, each adds
    its values to those of the next, as pytest's do. A failure names its case, and the other cases run all the same.
    """
    keys = [key.strip() for key in parameters.split(",")] if isinstance(parameters, str) else list(parameters)
    rows = [dict(zip(keys, value if len(keys) > 1 else (value,), strict=True)) for value in values]

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def check(*instance: Any, **fixtures: Any) -> None:
            failures = Failures()
            for index, row in enumerate(rows):
                with failures.of(functools.partial(_name, row, ids, index)):
                    function(*instance, **row, **fixtures)
            failures.report()

        @functools.wraps(function)
        async def check_async(*instance: Any, **fixtures: Any) -> None:
            failures = Failures()
            for index, row in enumerate(rows):
                with failures.of(functools.partial(_name, row, ids, index)):
                    await function(*instance, **row, **fixtures)
            failures.report()

        test: Any = check_async if inspect.iscoroutinefunction(function) else check
        test.__signature__ = _without(inspect.signature(function), keys)
        return test

    return decorate


class Failures:
    """The failures of the cases of one test."""

    def __init__(self) -> None:
        self._found: list[BaseException] = []
        self._cases = 0

    @contextmanager
    def of(self, name: Callable[[], str]) -> Iterator[None]:
        """Keep the failure of a case with this name."""
        self._cases += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 -- all are raised by `report`
            error.add_note(f"the case: {name()}")
            self._found.append(error)

    def report(self) -> None:
        """Raise all failures together."""
        assert self._cases, "there is no case"
        if self._found:
            raise BaseExceptionGroup(f"{len(self._found)} of {self._cases} cases failed", self._found)


def _name(row: dict[str, Any], ids: Names, index: int) -> str:
    if ids is None:
        return ", ".join(f"{key}={value!r}" for key, value in row.items())
    if callable(ids):
        return "-".join(str(ids(value)) for value in row.values())
    return str(ids[index])


def _without(signature: inspect.Signature, keys: list[str]) -> inspect.Signature:
    """The parameters that are left for the fixtures of pytest, and for other decorators."""
    for key in keys:
        assert key in signature.parameters, f"the test has no parameter {key!r}"
    return signature.replace(parameters=[value for key, value in signature.parameters.items() if key not in keys])
