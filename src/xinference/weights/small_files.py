"""Reads the small files of a model in a folder or a repository: JSON objects, and its chat template."""

from __future__ import annotations

from typing import Any

from xinference.formats.tokenizer_config import MAX_TOKENIZER_CONFIG, template_in
from xinference.formats.untrusted_json import decoded_object
from xinference.weights.file_source import FileSource

#: The configurations that have the template of a model without a file for it: of the tokenizer, and of a processor.
_TEMPLATE_CONFIGS = ("tokenizer_config.json", "chat_template.json")


def small_object(source: FileSource, name: str) -> dict[str, Any]:
    """A small JSON object; {} if the file does not exist or is not an object."""
    return decoded_object(source.small(name, MAX_TOKENIZER_CONFIG))


def read_template(source: FileSource, wanted: str = "default") -> str | None:
    """The chat template: from a file of its own in current models, from a configuration in older ones.

    Args:
        wanted: the name of the template, if a configuration has several.
    """
    if (own := _text(source, "chat_template.jinja")) is not None:
        return own
    templates = (template_in(small_object(source, name), wanted) for name in _TEMPLATE_CONFIGS)
    return next((template for template in templates if template is not None), None)


def read_tool_template(source: FileSource) -> str | None:
    """The template of requests with tools: the second one that some models have for them, or the only one."""
    own = _text(source, "additional_chat_templates/tool_use.jinja")
    return own if own is not None else read_template(source, "tool_use")


def _text(source: FileSource, name: str) -> str | None:
    """The text of a small file; None if it does not exist or is empty."""
    data = source.small(name, MAX_TOKENIZER_CONFIG)
    return data.decode("utf-8", "replace") if data else None
