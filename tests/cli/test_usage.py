"""`xinference usage`."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run

ROW: dict[str, Any] = {
    "node": "local",
    "model": "m",
    "requests": 12,
    "prompt_tokens": 300,
    "cached_tokens": 40,
    "output_tokens": 500,
    "estimated": 0,
    "seconds": 9.5,
    "first_token_p50": 0.21,
    "first_token_p95": 0.5,
    "per_token_p50": 0.02,
    "per_token_p95": 0.05,
}


def test_the_usage_is_a_table(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/usage"] = Answer([ROW, ROW | {"model": None, "per_token_p50": None, "estimated": 2}])
    result = run("usage")
    first, second = result.stdout.splitlines()[2:]
    assert first.split() == ["m", "12", "300", "40", "500", "0.21", "s", "0.50", "s", "50.0"]
    assert second.split()[0] == "-" and "~500" in second and second.split()[-1] == "-"
    assert "estimated" in result.stderr
    assert parse_qs(canned.asked_for("GET", "/v1/usage")[0].query)["by"] == ["model"]
    assert json.loads(run("usage", "--json").stdout)[0] == ROW


def test_groups_and_times_are_those_of_the_options(canned: Canned, run: Run) -> None:
    row = {name: value for name, value in ROW.items() if name != "model"}
    canned.answers["GET", "/v1/usage"] = Answer([row | {"key": None, "key_id": "k1", "time": 1795824000}])
    result = run(
        "usage", "--by", "key,day", "--since", "2026-11-28T00:00:00+00:00", "--until", "2026-11-29", "--key", "a"
    )
    assert result.stdout.splitlines()[2].split()[:2] == ["k1", "2026-11-28"]
    query = parse_qs(canned.asked_for("GET", "/v1/usage")[0].query)
    assert (query["by"], query["key"], query["from"]) == (["key,day"], ["a"], ["1795824000"])
    canned.answers["GET", "/v1/usage"] = Answer([])
    assert run("usage", "--since", "7d").stderr == "No request has ended in this time.\n"


@pytest.mark.parametrize(
    "options",
    [("--by", "colour"), ("--by", "day,hour"), ("--since", "x"), ("--since", "9999999d999"), ("--until", "-1")],
)
def test_what_cannot_be_read_is_named(run: Run, options: tuple[str, str]) -> None:
    result = run("usage", *options)
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert options[1] in result.stderr or "minute, hour and day" in result.stderr
