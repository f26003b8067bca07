"""The index of weights in several files may be damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from xinference.formats import weight_index
from xinference.formats.weight_index import read_shard_names


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}}')
    return path


def test_each_file_is_named_once(index: Path) -> None:
    assert read_shard_names(index) == {"1.safetensors", "2.safetensors"}


def test_an_index_that_cannot_be_read_names_no_file(index: Path) -> None:
    assert read_shard_names(index.parent) == read_shard_names(index.with_name("missing")) == frozenset()


def test_a_large_index_is_not_read(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_index, "MAX_INDEX", index.stat().st_size - 1)
    assert read_shard_names(index) == frozenset()
