"""The dialects of all engines by display name. Imports no engine: the gateway loads this module."""

from __future__ import annotations

from xinference.engines.dialect import Dialect
from xinference.engines.llama_cpp.dialect import DIALECT as LLAMA_CPP
from xinference.engines.sglang.dialect import DIALECT as SGLANG
from xinference.engines.transformers.dialect import DIALECT as TRANSFORMERS
from xinference.engines.vllm.dialect import DIALECT as VLLM

DIALECTS: dict[str, Dialect] = {dialect.engine: dialect for dialect in (LLAMA_CPP, VLLM, SGLANG, TRANSFORMERS)}
_PLAIN = Dialect("")


def dialect_of(engine: str) -> Dialect:
    """The dialect of the engine with this display name; for an unknown name, a dialect without differences."""
    return DIALECTS.get(engine, _PLAIN)
