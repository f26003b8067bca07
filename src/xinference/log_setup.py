"""Sets up the log of a server process: lines of text, or one JSON object in each line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from xinference.recent_log import RECENT, RecentLogHandler

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)
#: The name of the logger of requests.
ACCESS = "xinference.access"
#: The attribute of a record with further fields for JSON.
FIELDS = "fields"
#: Control characters as escapes: the text of a client or an engine must not look like a line of the log.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {ord("\n"): "\\n"}


class TextFormatter(logging.Formatter):
    """One line of text for each record, followed by its traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(_ESCAPES)
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object for each record: time (UTC), level, logger, message, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def set_up_log(level: str, log_format: str) -> None:
    """Write the log of this process to stderr, and keep its last lines."""
    handler = RecentLogHandler(sys.stderr, RECENT)
    handler.setFormatter(JsonFormatter() if log_format == JSON else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
