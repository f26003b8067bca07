"""All engines by display name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from xinference.engines.base import Engine
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.sglang.engine import SGLang
from xinference.engines.transformers.engine import Transformers
from xinference.engines.vllm.engine import VLLM

#: Every engine, the one of the base install first; another engine needs an entry here.
ENGINES: tuple[Engine, ...] = (LlamaCpp(), VLLM(), SGLang(), Transformers())


def all_engines() -> Mapping[str, Engine]:
    """Every engine by its display name, in the order of `ENGINES`."""
    return MappingProxyType({engine.table.engine: engine for engine in ENGINES})
