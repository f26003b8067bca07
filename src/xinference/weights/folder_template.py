"""Reads the chat template of weights in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xinference.formats.tokenizer_config import MAX_TOKENIZER_CONFIG, template_in
from xinference.formats.untrusted_json import decoded_object


def read_template(folder: Path) -> str | None:
    """Jinja source: from a separate file in current models, from the tokenizer's configuration in older ones."""
    return _text(folder / "chat_template.jinja") or template_in(small_json(folder / "tokenizer_config.json"))


def read_tool_template(folder: Path) -> str | None:
    """The template of requests with tools: the second one that some models have for them, or the only one."""
    own = _text(folder / "additional_chat_templates" / "tool_use.jinja") or _text(folder / "chat_template.jinja")
    return own or template_in(small_json(folder / "tokenizer_config.json"), "tool_use")


def _text(file: Path) -> str | None:
    if file.is_file() and file.stat().st_size <= MAX_TOKENIZER_CONFIG:
        return file.read_text(encoding="utf-8", errors="replace")
    return None


def small_json(path: Path) -> dict[str, Any]:
    """A small JSON object; {} if the file does not exist or is not an object."""
    try:
        return decoded_object(path.read_bytes()) if path.stat().st_size <= MAX_TOKENIZER_CONFIG else {}
    except OSError:
        return {}
