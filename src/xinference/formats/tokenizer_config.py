"""Reads the chat template in a model's ``tokenizer_config.json`` (the format of Hugging Face's transformers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Maximum size that is read, in bytes.
MAX_TOKENIZER_CONFIG = 8 << 20


def template_in(config: Mapping[str, Any], wanted: str = "default") -> str | None:
    """The chat template of a tokenizer's configuration; of several the one named `wanted`, or ``default``."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get(wanted) or named.get("default") or next(iter(named.values()), None)
    return template if isinstance(template, str) else None
