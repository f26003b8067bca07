"""The lines of the server's log."""

from __future__ import annotations

import json
import logging

import pytest

from xinference.log_setup import FIELDS, JsonFormatter, TextFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("xinference.models", logging.WARNING, __file__, 1, message, (), None)
    made.__dict__.update(extra)
    return made


def test_a_text_can_not_look_like_another_line_or_control_a_terminal() -> None:
    line = TextFormatter().format(record("m: died\n2026-01-01 INFO xinference: all is well\x1b[2J\r"))
    assert "\n" not in line and "\x1b" not in line and line.endswith("all is well\\x1b[2J\\x0d")
    assert "WARNING xinference.models: m: died\\n2026" in line


def test_json_is_one_object_in_a_line_with_the_fields_of_the_record() -> None:
    line = JsonFormatter().format(record("é\n", **{FIELDS: {"status": 200}}))
    entry = json.loads(line)
    assert "\n" not in line and (entry["level"], entry["logger"], entry["message"]) == (
        "WARNING", "xinference.models", "é\n",
    )  # fmt: skip
    assert entry["status"] == 200 and entry["time"].endswith("+00:00")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_traceback_is_kept(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        made = record("failed", exc_info=(type(error), error, error.__traceback__))
    assert "ValueError: why" in formatter.format(made)
