"""Writes a derived family as the JSON of a registration, for a user to edit and register. Pure."""

from __future__ import annotations

import re
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec, Source

_PARTED = re.compile(r"(?P<stem>.+)-(?P<part>\d{5}-of-\d{5})\.gguf", re.IGNORECASE)


def document(family: ModelFamily, model_family: str) -> dict[str, Any]:
    """Version 2 of the JSON; a spec for each quantization."""
    specs = [
        _spec(spec, source, quantization)
        for spec in family.model_specs
        for source in spec.sources
        for quantization in spec.quantizations
    ]
    if family.model_type != "LLM":
        return {
            "version": 2,
            "model_name": family.model_name,
            "max_tokens": family.context_length,
            "language": list(family.model_lang),
            "model_specs": specs,
        }
    return {
        "version": 2,
        "model_name": family.model_name,
        "context_length": family.context_length,
        "model_lang": list(family.model_lang),
        "model_ability": list(family.model_ability),
        "model_description": family.model_description,
        "model_family": model_family,
        "model_specs": specs,
        "chat_template": family.chat_template,
        "stop": list(family.stop),
        "stop_token_ids": list(family.stop_token_ids),
        "tool_parser": family.tool_parser,
        "reasoning_start_tag": family.reasoning_tags[0] if family.reasoning_tags else None,
        "reasoning_end_tag": family.reasoning_tags[1] if family.reasoning_tags else None,
    }


def _spec(spec: ModelSpec, source: Source, quantization: str) -> dict[str, Any]:
    is_local = source.hub == "local"
    common = {
        "model_format": spec.model_format,
        "model_size_in_billions": spec.model_size_in_billions,
        "quantization": quantization,
        "model_hub": "huggingface" if is_local else source.hub,
        "model_id": None if is_local else source.model_id,
        "model_revision": source.revision,
        "model_uri": f"file://{source.model_id}" if is_local else None,
    }
    names = source.parts.get(quantization)
    return common if names is None else common | _files(names, quantization)


def _files(names: tuple[str, ...], quantization: str) -> dict[str, Any]:
    matches = [_PARTED.fullmatch(name) for name in names]
    stem = next((match["stem"] for match in matches if match), None)
    if len(names) == 1 or stem is None:
        return {"model_file_name_template": names[0]}
    return {
        "model_file_name_template": f"{stem}.gguf",
        "model_file_name_split_template": f"{stem}-{{part}}.gguf",
        "quantization_parts": {quantization: [match["part"] for match in matches if match]},
    }
