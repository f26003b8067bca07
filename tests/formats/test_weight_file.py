"""A user's path may name one of the server's own files: problems describe only the files of models."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats import gguf_writer as w
from xinference.errors import Problem
from xinference.formats.ggml import read_ggml
from xinference.formats.gguf import read_header
from xinference.formats.safetensors import read_safetensors
from xinference.hubs.local_files import resolve_local
from xinference.launch.request import LaunchRequest
from xinference.weights.derivation import derive
from xinference.weights.reference import Reference

SECRET = b"s3cr:$y$j9T$s3cret\n"


def by_path(model_format: str) -> Callable[[Path], Any]:
    return lambda path: resolve_local(str(path), model_format, None)


def by_name(path: Path) -> Any:
    return derive(LaunchRequest(model_name=str(path)), Reference(path=str(path)), [], {})


READERS = [read_header, read_ggml, read_safetensors, by_path("ggufv2"), by_path("ggmlv3"), by_path("gptq"), by_name]


def refused(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(Problem) as caught:
        read(path)
    problem = caught.value
    return f"{problem.code} {problem.status} {problem.cause} {problem.hint}".replace(str(path), "PATH").replace(
        str(path.parent), "FOLDER"
    )


@pytest.mark.parametrize("read", READERS)
def test_no_problem_shows_whether_a_file_exists_or_what_it_contains(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    (tmp_path / "shadow").write_bytes(SECRET)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "key.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----")
    (tmp_path / "page").write_bytes(b"<html>")
    (tmp_path / "number").write_bytes(b"12345678{" + bytes(600))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "id_rsa").write_bytes(SECRET)
    names = ["shadow", "empty", "key.pem", "page", "number", "pipe", "folder", "nothing", "nothing/at/all", "page/x"]
    problems = {refused(read, tmp_path / name) for name in names}
    assert len(problems) == 1, problems


@pytest.mark.parametrize("read", READERS[:5])
@pytest.mark.parametrize("name", ["shadow", "m.gguf", "m.bin"])
def test_no_problem_quotes_the_bytes_of_a_file(tmp_path: Path, read: Callable[[Path], Any], name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SECRET)
    assert "s3" not in refused(read, path)


@pytest.mark.parametrize("model_format", ["ggufv2", "ggmlv3"])
@pytest.mark.parametrize("name", ["pipe.bin", "pipe.gguf", "pipe"])
def test_a_named_pipe_is_refused_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_format: str, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    original = Path.open

    def open_checked(path: Path, *arguments: Any, **keywords: Any) -> Any:
        assert not stat.S_ISFIFO(path.stat().st_mode), "this would wait for a writer"
        return original(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", open_checked)
    refused(by_path(model_format), tmp_path / name)


def test_weights_are_read_under_any_file_name(tmp_path: Path) -> None:
    path = w.Gguf().write(tmp_path / "sha256-0123")
    assert read_header(path).architecture == "llama" and resolve_local(str(path), "ggufv2", None) == path


@pytest.mark.parametrize(
    ("key", "count"),
    [("context_length", 0), ("context_length", 1), ("embedding_length", 0), ("vocab_size", 0)],
)
def test_a_header_with_a_count_that_is_too_small_is_refused(tmp_path: Path, key: str, count: int) -> None:
    pairs = w.llama_pairs() | {f"llama.{key}": w.scalar(w.UINT32, count)}
    path = w.Gguf(pairs=pairs).write(tmp_path / "m.gguf")
    with pytest.raises(Problem, match=rf"llama\.{key} is {count}") as caught:
        read_header(path)
    assert (caught.value.code, caught.value.status) == ("bad_weight_file", 400)
