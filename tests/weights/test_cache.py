from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xinference.catalog.models import HubName, ModelFamily, ModelSpec, ModelVersion, Source
from xinference.config import Settings
from xinference.errors import Problem
from xinference.files.progress import Progress
from xinference.hubs.base import FetchPreview, RemoteFile
from xinference.hubs.cached_files import CachedFile, delete
from xinference.hubs.offer import Offer
from xinference.weights.cache import CacheUse, cached_versions, find_sharing, find_version, remove

SOURCE = Source(hub="huggingface", model_id="o/tiny", file="tiny.{quantization}.bin")
FOLDER = Source(hub="huggingface", model_id="o/folder")
GGML = ModelSpec(
    model_format="ggmlv3", model_size_in_billions=1, quantizations=("q4_0", "q4_K", "q4_K_M"), sources=(SOURCE,)
)
PYTORCH = ModelSpec(
    model_format="pytorch", model_size_in_billions=1, quantizations=("none", "8-bit"), sources=(FOLDER,)
)
FAMILY = ModelFamily(
    model_name="tiny", context_length=8, model_lang=("en",), model_ability=("chat",), model_specs=(GGML, PYTORCH)
)
Q4_0, Q4_K, Q4_K_M = (f"tiny--1B--ggmlv3--{q}" for q in GGML.quantizations)


class FolderHub:
    """A hub whose cache is a folder with the files themselves; one with `.part` at its end is not whole."""

    name: HubName = "huggingface"

    def __init__(self, root: Path) -> None:
        self.root = root

    def files(self, version: ModelVersion, source: Source) -> list[RemoteFile]:
        raise AssertionError("no hub is asked")

    def preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        raise AssertionError("no hub is asked")

    def fetch(self, version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event) -> Path:
        raise AssertionError("nothing is fetched")

    def find_cached(self, version: ModelVersion, source: Source) -> Path | None:
        name = source.file_name(version.quantization)
        path = self.root / name if name else self.root / "folder"
        return path if path.exists() else None

    def offer(self, version: ModelVersion, source: Source) -> Offer | None:
        raise AssertionError("no other machine asks")

    def receive(self, *arguments: object) -> Path:
        raise AssertionError("nothing is copied")

    def may_have_cached(self, source: Source) -> bool:
        return self.root.is_dir()

    def list_cached(self, version: ModelVersion, source: Source) -> tuple[CachedFile, ...]:
        name = source.file_name(version.quantization)
        paths = [self.root / name, self.root / f"{name}.part"] if name else [self.root / "folder" / "w.safetensors"]
        return tuple(CachedFile(path, path, self.root) for path in paths if path.is_file())

    def delete_cached(self, version: ModelVersion, source: Source) -> int:
        return delete(self.list_cached(version, source))


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    (tmp_path / "hub").mkdir()
    return FolderHub(tmp_path / "hub")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "home" / "cache" / "converted").mkdir(parents=True)
    return Settings(home=tmp_path / "home")


def put(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def free(hub: FolderHub, settings: Settings, version_id: str, *uses: CacheUse) -> int:
    found = cached_versions([FAMILY], {"huggingface": hub}, settings)
    return remove(found, version_id, {"huggingface": hub}, uses)


def test_nothing_is_listed_of_an_empty_cache(hub: FolderHub, settings: Settings) -> None:
    assert cached_versions([FAMILY], {"huggingface": hub}, settings) == []


def test_a_source_of_which_nothing_is_cached_is_asked_once_for_all_its_versions(
    hub: FolderHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Source] = []
    monkeypatch.setattr(hub, "may_have_cached", asked.append)
    monkeypatch.setattr(hub, "list_cached", lambda *_: pytest.fail("a version was listed"))
    assert cached_versions([FAMILY], {"huggingface": hub}, settings) == []
    assert asked == [source for spec in FAMILY.model_specs for source in spec.sources]


def test_an_entry_tells_where_it_is_how_large_and_whether_it_is_whole(hub: FolderHub, settings: Settings) -> None:
    path = put(hub.root, "tiny.q4_0.bin", 10)
    put(hub.root, "tiny.q4_K.bin.part", 3)
    whole, begun = (each.to_dict() for each in cached_versions([FAMILY], {"huggingface": hub}, settings))
    assert whole == {
        "model_name": "tiny",
        "model_type": "LLM",
        "model_size_in_billions": 1,
        "model_format": "ggmlv3",
        "quantization": "q4_0",
        "model_version": Q4_0,
        "path": str(path),
        "real_path": str(path.resolve()),
        "actor_ip_address": None,
        "hub": "huggingface",
        "model_id": "o/tiny",
        "size_bytes": 10,
        "complete": True,
    }
    assert (begun["model_version"], begun["size_bytes"], begun["complete"]) == (Q4_K, 3, False)


def test_a_conversion_belongs_to_exactly_its_version(hub: FolderHub, settings: Settings) -> None:
    put(hub.root, "tiny.q4_K.bin", 10)
    converted = settings.cache_dir / "converted"
    put(converted, f"{Q4_K}-0123456789ab.gguf", 5)
    other = put(converted, f"{Q4_K_M}-0123456789ab.gguf", 7)
    first, orphan = cached_versions([FAMILY], {"huggingface": hub}, settings)
    assert (first.version.version_id, first.size_bytes) == (Q4_K, 15)
    assert (orphan.version.version_id, orphan.source, orphan.path, orphan.complete) == (Q4_K_M, None, other, False)
    assert free(hub, settings, Q4_K) == 15
    assert other.exists() and list(converted.iterdir()) == [other]
    assert free(hub, settings, Q4_K_M) == 7


def test_what_a_broken_conversion_left_goes_too(hub: FolderHub, settings: Settings) -> None:
    put(hub.root, "tiny.q4_0.bin", 1)
    put(settings.cache_dir / "converted", f".{Q4_0}-0123456789ab.gguf.partial", 4)
    assert free(hub, settings, Q4_0) == 5


def test_what_is_not_there_is_refused_with_what_is(hub: FolderHub, settings: Settings) -> None:
    put(hub.root, "tiny.q4_K.bin", 1)
    found = cached_versions([FAMILY], {"huggingface": hub}, settings)
    with pytest.raises(Problem) as caught:
        find_version(found, Q4_K_M)
    assert (caught.value.status, caught.value.code) == (404, "not_cached")
    assert Q4_K in str(caught.value.hint)


def test_versions_that_load_one_folder_in_two_ways_are_told_of(hub: FolderHub, settings: Settings) -> None:
    put(hub.root / "folder", "w.safetensors", 9)
    found = cached_versions([FAMILY], {"huggingface": hub}, settings)
    assert find_sharing(found, found[:1]) == ["tiny--1B--pytorch--8-bit"]


@pytest.mark.parametrize(
    "use",
    [
        CacheUse("the model mine", "tiny--1B--pytorch--8-bit", None),
        CacheUse("the model mine", None, Path("folder")),
        CacheUse("the model mine", None, Path("folder/w.safetensors")),
    ],
)
def test_what_something_uses_is_not_removed(hub: FolderHub, settings: Settings, use: CacheUse) -> None:
    weights = put(hub.root / "folder", "w.safetensors", 9)
    path = hub.root / use.path if use.path else None
    with pytest.raises(Problem) as caught:
        free(hub, settings, "tiny--1B--pytorch--none", CacheUse(use.user, use.version_id, path))
    assert (caught.value.status, caught.value.code) == (409, "in_use")
    assert "the model mine" in caught.value.cause
    assert weights.exists()


def test_a_model_that_runs_on_the_conversion_keeps_it(hub: FolderHub, settings: Settings) -> None:
    put(hub.root, "tiny.q4_0.bin", 1)
    made = put(settings.cache_dir / "converted", f"{Q4_0}-0123456789ab.gguf", 4)
    with pytest.raises(Problem, match="in use"):
        free(hub, settings, Q4_0, CacheUse("the model mine", None, made))


def test_a_model_on_other_files_does_not_hinder(hub: FolderHub, settings: Settings) -> None:
    put(hub.root, "tiny.q4_0.bin", 1)
    assert free(hub, settings, Q4_0, CacheUse("the model mine", Q4_K, hub.root / "tiny.q4_K.bin")) == 1


@pytest.mark.process
def test_the_whole_registry_is_looked_for_without_a_socket_or_a_hubs_library(tmp_path: Path) -> None:
    script = """
import socket, sys
from pathlib import Path
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.weights.cache import cached_versions
from xinference.hubs.registry import all_hubs
def refuse(*_): raise AssertionError("a socket was opened")
socket.socket.connect = refuse
settings = Settings(home=Path(sys.argv[1]))
assert cached_versions(builtin_families().values(), all_hubs(settings), settings) == []
print(sorted({"huggingface_hub", "modelscope_hub", "requests", "httpx2"} & sys.modules.keys()))
"""
    env = os.environ | {"HF_HOME": str(tmp_path / "hf"), "MODELSCOPE_CACHE": str(tmp_path / "ms")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.strip() == "[]"
