"""Join tokens: valid for their time and uses, and stored without their secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes.join_tokens import JoinToken, TokenRow, create_token, parse_token, use_token

FINGERPRINT = "0123456789abcdef"


def _created(uses: int | None = 1) -> tuple[JoinToken, TokenRow]:
    return create_token(FINGERPRINT, now=1000.0, seconds=60.0, uses=uses)


def test_a_token_reads_back_as_it_was_printed() -> None:
    token, _ = _created()
    assert parse_token(f" {token.text}\n") == token


def test_the_secret_is_not_stored() -> None:
    token, row = _created()
    assert token.secret not in repr(row)


def test_two_tokens_are_never_alike() -> None:
    assert len({_created()[0].text for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "text", ["", "xt_", "xt_00000000.short@0123456789abcdef", "sk-xyz", "xt_00000000." + "a" * 40, "x" * 100_000]
)
def test_what_is_no_token_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_token(text)
    assert caught.value.code == Code.INVALID_JOIN_TOKEN
    assert len(str(caught.value)) < 400


def test_a_use_counts() -> None:
    token, row = _created(uses=2)
    row = use_token(row, token, 1001)
    row = use_token(row, token, 1002)
    with pytest.raises(Problem, match="as often as it may be"):
        use_token(row, token, 1003)


def test_a_token_for_any_number_of_nodes_stays_as_it_is() -> None:
    token, row = _created(uses=None)
    assert use_token(row, token, 1001) == row


@pytest.mark.parametrize(
    ("change", "now", "reason"),
    [({}, 1060.0, "expired"), ({"revoked": True}, 1001.0, "revoked"), ({"uses_left": 0}, 1001.0, "as often")],
)
def test_a_token_that_is_over_is_refused_with_its_reason(change: dict[str, Any], now: float, reason: str) -> None:
    token, row = _created()
    with pytest.raises(Problem, match=reason) as caught:
        use_token(replace(row, **change), token, now)
    assert caught.value.code == Code.JOIN_TOKEN_REFUSED


def test_a_wrong_secret_learns_nothing_of_the_token() -> None:
    token, row = _created()
    wrong = replace(token, secret="A" * 43)
    for stored in (row, replace(row, revoked=True), replace(row, expires=0.0), None):
        with pytest.raises(Problem, match="unknown to this cluster"):
            use_token(stored, wrong, 1001)
