"""What the hubs' own tools fetched is found here, and they find what is fetched here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hubs.loopback_fetch import BYTES, CHOSEN, COMMIT, FOLDER, Fetching
from tests.hubs.versions import version as gguf_version
from xinference.catalog.models import Source

CACHE_VARIABLES = {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "hub"}


def their_cache() -> Path:
    return Path(os.environ["HF_HOME"]) / "hub"


def their_download(fetching: Fetching, name: str, revision: str | None = None, offline: bool = False) -> Path:
    from huggingface_hub import hf_hub_download

    url, cache = fetching.server.url, their_cache()
    path = hf_hub_download(
        "tiny/llama", name, revision=revision, endpoint=url, cache_dir=cache, local_files_only=offline, token=False
    )
    return Path(path)


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_file_that_their_library_fetched_is_found(huggingface: Fetching, revision: str | None) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    path = their_download(huggingface, "tiny.bin", revision)
    assert huggingface.cached(huggingface.version("tiny.bin", revision)) == path


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_their_library_finds_a_file_that_was_fetched_here(huggingface: Fetching, revision: str | None) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    path = huggingface(huggingface.version("tiny.bin", revision))
    assert their_download(huggingface, "tiny.bin", revision, offline=True) == path


def test_a_folder_that_their_library_fetched_is_found(huggingface: Fetching) -> None:
    from huggingface_hub import snapshot_download

    huggingface.serve(FOLDER)
    url, cache = huggingface.server.url, their_cache()
    folder = Path(snapshot_download("tiny/llama", revision=COMMIT, endpoint=url, cache_dir=cache, token=False))
    assert huggingface.cached(huggingface.version(revision=COMMIT)) == folder


def test_a_part_of_a_folder_that_their_library_fetched_is_not_taken_for_whole(huggingface: Fetching) -> None:
    huggingface.serve(FOLDER)
    for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        their_download(huggingface, name)
    assert huggingface.cached(huggingface.version()) is None
    folder = huggingface(huggingface.version())
    assert sorted(path.name for path in folder.iterdir()) == CHOSEN
    assert huggingface.server.counters.sent["model-00001-of-00002.safetensors"] == len(BYTES)


def test_a_cut_gguf_file_of_unknown_origin_is_not_taken_for_whole(huggingface: Fetching) -> None:
    huggingface.serve({"tiny.gguf": b"GGUF" + BYTES})
    their_download(huggingface, "tiny.gguf")
    source = Source(hub="huggingface", model_id="tiny/llama", file="tiny.gguf")
    assert huggingface.cached(gguf_version(source)) is None


@pytest.mark.parametrize("variable", CACHE_VARIABLES)
def test_their_cache_is_where_their_variables_say(
    huggingface: Fetching, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    huggingface.serve({"tiny.bin": BYTES})
    path = huggingface(huggingface.version("tiny.bin"))
    assert path.is_relative_to(tmp_path / "elsewhere" / CACHE_VARIABLES[variable] / "models--tiny--llama")


def modelscope_client(fetching: Fetching) -> Any:
    from modelscope_hub import HubApi, HubConfig

    return HubApi(HubConfig(cache_dir=Path(os.environ["MODELSCOPE_CACHE"]), endpoint=fetching.server.url))


@pytest.mark.parametrize("revision", [None, "v1.0"])
def test_a_file_that_modelscopes_client_fetched_is_found(modelscope: Fetching, revision: str | None) -> None:
    modelscope.serve({"tiny.bin": BYTES})
    path = modelscope_client(modelscope).download_file("tiny/llama", "model", "tiny.bin", revision=revision)
    assert modelscope.cached(modelscope.version("tiny.bin", revision)) == path


@pytest.mark.parametrize("revision", [None, "v1.0"])
def test_modelscopes_client_finds_what_was_fetched_here(modelscope: Fetching, revision: str | None) -> None:
    modelscope.serve(FOLDER)
    folder = modelscope(modelscope.version(revision=revision))
    found = modelscope_client(modelscope).download_repo("tiny/llama", "model", revision=revision, local_files_only=True)
    assert found == folder


def test_the_layout_of_modelscopes_older_releases_goes_on(modelscope: Fetching) -> None:
    modelscope.serve({"tiny.bin": BYTES}, id="tiny/llama-1.5")
    version = modelscope.version("tiny.bin", model_id="tiny/llama-1.5")
    older = Path(os.environ["MODELSCOPE_CACHE"]) / "hub" / "models" / "tiny" / "llama-1___5"
    older.mkdir(parents=True)
    (older / "tiny.bin").write_bytes(BYTES)
    assert modelscope.cached(version) == older / "tiny.bin"
    assert modelscope(version) == older / "tiny.bin"
    (older / "tiny.bin").unlink()
    (older / "README.md").touch()
    assert modelscope(version) == older / "tiny.bin"


def test_a_repository_removed_with_their_tool_is_no_longer_here(huggingface: Fetching) -> None:
    huggingface.serve(FOLDER)
    huggingface(huggingface.version())
    shutil.rmtree(their_cache())
    assert huggingface.cached(huggingface.version()) is None
