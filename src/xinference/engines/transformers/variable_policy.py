"""The environment variables that a launch may set for the Transformers server."""

from __future__ import annotations

from xinference.engines.options.variable_policy import COMMON, TORCH, VariablePolicy

VARIABLES = VariablePolicy(engine="Transformers", allowed=COMMON | TORCH)
