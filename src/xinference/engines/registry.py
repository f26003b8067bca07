"""The engines there are, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from xinference.engines.base import Engine
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.sglang.engine import SGLang
from xinference.engines.transformers.engine import Transformers
from xinference.engines.vllm.engine import VLLM


def all_engines() -> Mapping[str, Engine]:
    """Every engine by its display name, the one of the base install first."""
    engines: tuple[Engine, ...] = (LlamaCpp(), VLLM(), SGLang(), Transformers())
    return MappingProxyType({engine.table.engine: engine for engine in engines})
