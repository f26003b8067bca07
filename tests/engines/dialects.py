"""What an engine's dialect says of an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.engines.dialect import EngineError
from xinference.engines.dialects import DIALECTS
from xinference.protocol.errors import Refusal


def explained(
    engine: str, error: Mapping[str, Any], *, context_length: int | None = None, prompt_field: str = "messages"
) -> Refusal:
    """The refusal that the dialect of `engine` makes of an error object; there must be one."""
    refusal = DIALECTS[engine].explain(EngineError(error, error["message"], prompt_field, context_length))
    assert refusal is not None
    return refusal
