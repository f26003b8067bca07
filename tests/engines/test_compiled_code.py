"""Where the engines' compiled code is: another user could make a folder in the system's temporary folder first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.plans import plan_of
from xinference.engines.registry import all_engines
from xinference.engines.replica_placement import Placement


@pytest.mark.parametrize("engine", ["vLLM", "SGLang", "Transformers"])
def test_an_engine_of_pytorch_gets_a_folder_for_compiled_code(engine: str) -> None:
    made = all_engines()[engine].command(plan_of(), "sk-secret", Placement(Path("/env/bin/python"), ()))
    assert list(made.cache_variables) == ["TORCHINDUCTOR_CACHE_DIR"]
