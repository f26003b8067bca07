"""A user's mistake: one clear message, exit status 1, nothing left behind, and the next launch works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.support.home import SMOLLM2, UID, Home


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home]) -> Home:
    home = make_home()
    home.serve()
    return home


def refused(home: Home, *arguments: str) -> str:
    """Launch something that can't be; gives what was said on stderr."""
    ended = home.cli("launch", *arguments)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert httpx2.get(f"{home.url}/v1/models/instances", timeout=10).json() == []
    assert len(home.processes()) == 1
    return ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-n", "smollm3-instruct-x"), "smollm2-instruct"),
        (("-n", UID, "-s", "7"), f"{UID} has no size 7"),
        (("-n", UID, "-s", "0_135", "-f", "gptq"), "has no format gptq"),
        (("-n", UID, "-s", "0_135", "-f", "ggufv2", "-q", "Q4_2"), "has no quantization Q4_2"),
        (("-n", UID, "-en", "llama"), "llama.cpp"),
        (("-n", UID, "-en", "vLLM", "-q", "Q4_1"), "vLLM runs pytorch, gptq, awq, fp8, fp4, not ggufv2"),
        (("-n", UID, "--n-gpu", "9"), "n_gpu is 9"),
        (("-n", UID, "--no_such_option", "1"), "no option --no_such_option"),
        (("-n", UID, "--n_ctx", "many"), "--n_ctx is 'many'"),
        (("-n", UID, "-u", "a b"), "model UID 'a b'"),
        (("-n", UID, "-mp", "/nowhere/model.gguf"), "/nowhere/model.gguf"),
    ],
)
def test_a_wrong_name_is_refused_with_what_would_do(home: Home, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(home, *arguments)


def test_a_truncated_gguf_is_refused_with_both_sizes(home: Home, smollm2_file: Path, tmp_path: Path) -> None:
    data = smollm2_file.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data[: len(data) // 2])
    said = refused(home, "-n", UID, "-mp", str(broken))
    assert str(broken) in said and "truncated" in said and f"{len(data)}" in said and f"{len(data) // 2}" in said


def test_a_file_that_is_no_gguf_is_refused_by_what_it_is(home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.gguf"
    page.write_text("<!DOCTYPE html><html><body>404</body></html>")
    assert "HTML" in refused(home, "-n", UID, "-mp", str(page))


def test_a_sound_header_with_an_unknown_architecture_fails_with_the_engines_words(
    home: Home, smollm2_file: Path, tmp_path: Path
) -> None:
    data = smollm2_file.read_bytes()
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(data.replace(b"llama", b"lmaxx", 60) if data.count(b"llama", 0, 4096) else data)
    ended = home.cli("launch", "-n", UID, "-mp", str(odd), "-u", "odd")
    assert ended.returncode == 1
    assert "architecture" in ended.stderr and "Traceback" not in ended.stderr
    assert "odd" not in home.cli("list").stdout and "odd" in home.cli("list", "--all").stdout
    assert len(home.processes()) == 1


def test_after_all_that_the_right_line_works(home: Home) -> None:
    ended = home.cli("launch", "--model-engine", "llama.cpp", *SMOLLM2)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == UID
    assert home.chat().status_code == 200
