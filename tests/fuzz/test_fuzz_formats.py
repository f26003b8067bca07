from __future__ import annotations

from pathlib import Path

from tests.fuzz.fuzz_formats import run
from tests.support.examples import examples


def test_mutated_headers_end_as_a_header_or_a_problem(tmp_path: Path) -> None:
    result = run(tmp_path, cases=examples(10_000), seconds=3, seed=1)
    assert result.failures == []
    assert {"ggml refused", "ggml accepted", "gguf refused", "gguf accepted"} <= result.cases.keys()
