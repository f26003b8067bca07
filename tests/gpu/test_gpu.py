"""What only a GPU can show, as tests; `tests/gpu/run.py` runs the same and writes the table down.

XINFERENCE_TEST_ENVIRONMENTS names a folder in which the CUDA environments are built.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.__main__ import LINE_SECONDS, try_line
from tests.conformance.page import LaunchLine
from tests.gpu.run import ASKED, PACKED, RIGHT, PackedLaunch, gpu_home, gpu_lines, main, two_models_share_a_card
from tests.support.home import Home
from xinference.hardware.devices import read_host

HOST = read_host()
needs_gpu = pytest.mark.skipif(not HOST.gpus, reason=f"there is no GPU here: {HOST.no_gpu_reason}")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[LaunchLine]:
    return gpu_lines(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    built = os.environ.get("XINFERENCE_TEST_ENVIRONMENTS")
    with gpu_home(tmp_path_factory.mktemp("gpu"), Path(built) if built else None) as home:
        yield home


def test_the_lines_are_all_of_vllm_and_sglang_on_the_page(lines: list[LaunchLine]) -> None:
    packed = [line for line in lines if "gptq" in line.words or "awq" in line.words]
    assert len(lines) == 18
    assert len({line.text for line in [*packed, *(line for line in lines if line.engine == "SGLang")]}) == 15


def test_each_packed_format_has_a_line_on_each_engine_with_kernels_for_it() -> None:
    titles = {launch.title for launch in PACKED}
    forms = ("W8A8", "W4A16", "fp8", "fp8 of tensors", "fp8 in blocks", "NVFP4", "MXFP4")
    assert {f"{form} on {engine}" for form in forms for engine in ("vLLM", "SGLang")} <= titles
    assert {"fp8 on vLLM", "none --model_quantization bitsandbytes on SGLang", "4-bit on Transformers"} <= titles


@pytest.mark.skipif(bool(HOST.gpus), reason="there is a GPU here")
def test_without_a_gpu_the_run_says_so_and_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "no GPU" in capsys.readouterr().err


@needs_gpu
@pytest.mark.live
@pytest.mark.timeout(2 * LINE_SECONDS)
@pytest.mark.parametrize("number", range(18))
def test_a_line_that_wants_cuda_runs_as_printed_and_answers_word_for_word(
    home: Home, lines: list[LaunchLine], number: int
) -> None:
    row = try_line(home, lines[number], ASKED)
    assert row.good, f"{row.line.text}: {row.outcome}"


@needs_gpu
@pytest.mark.live
@pytest.mark.timeout(2 * LINE_SECONDS)
@pytest.mark.parametrize("launch", PACKED, ids=lambda launch: launch.title)
def test_packed_weights_answer_word_for_word(home: Home, tmp_path: Path, launch: PackedLaunch) -> None:
    assert launch.outcome(home, tmp_path) == RIGHT


@needs_gpu
@pytest.mark.live
@pytest.mark.timeout(3 * LINE_SECONDS)
def test_two_models_share_a_card_each_with_its_own_part_of_the_memory(home: Home) -> None:
    assert two_models_share_a_card(home) == "both answered word for word"
