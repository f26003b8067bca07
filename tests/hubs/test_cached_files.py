"""What a version occupies in each hub's cache, and that no other file goes with it."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from msgspec import structs

from tests.fakes.hub.repositories import Fault
from tests.hubs.loopback_fetch import BYTES, FOLDER, Fetching
from xinference.catalog.models import ModelVersion
from xinference.config import Settings
from xinference.errors import Problem
from xinference.hubs.cached_files import CachedFile, delete, total_size
from xinference.hubs.registry import all_hubs


def kept(fetching: Fetching, version: ModelVersion) -> tuple[CachedFile, ...]:
    hub = all_hubs(Settings(home=fetching.home, offline=True))[fetching.name]
    return hub.list_cached(version, version.spec.sources[0])


def forget(fetching: Fetching, version: ModelVersion) -> int:
    hub = all_hubs(Settings(home=fetching.home, offline=True))[fetching.name]
    return hub.delete_cached(version, version.spec.sources[0])


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def test_a_file_is_kept_with_its_bytes_and_gone_when_forgotten(fetching: Fetching) -> None:
    fetching.serve({"tiny.q4_0.bin": BYTES, "tiny.q8_0.bin": BYTES[::-1]})
    first, second = fetching.version("tiny.q4_0.bin"), fetching.version("tiny.q8_0.bin")
    assert kept(fetching, first) == ()
    path, other = fetching(first), fetching(second)
    assert [file.path for file in kept(fetching, first)] == [path]
    assert total_size(kept(fetching, first)) == len(BYTES)
    assert forget(fetching, first) == len(BYTES)
    assert kept(fetching, first) == () and fetching.cached(first) is None
    assert other.read_bytes() == BYTES[::-1] and fetching.cached(second) == other


def test_a_projector_stays_as_long_as_another_quantization_sees_through_it(fetching: Fetching) -> None:
    fetching.serve({"tiny.q4_0.bin": BYTES, "tiny.q8_0.bin": BYTES[::-1], "mmproj.bin": BYTES[:1000]})
    version = fetching.version("tiny.{quantization}.bin", projectors=("mmproj.bin",))
    spec = structs.replace(version.spec, quantizations=("q4_0", "q8_0"))
    first, second = (structs.replace(version, spec=spec, quantization=each) for each in spec.quantizations)
    fetching(first), fetching(second)
    assert forget(fetching, first) == len(BYTES)
    assert fetching.cached(second) is not None
    assert forget(fetching, second) == len(BYTES) + 1000
    assert kept(fetching, first) == kept(fetching, second) == ()


def test_a_folder_is_kept_with_all_its_files(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    folder = fetching(fetching.version())
    there = files_below(folder)
    assert {file.path for file in kept(fetching, fetching.version())} == {p for p in there if p.name[0] != "."}
    forget(fetching, fetching.version())
    assert not folder.exists() or not any(p for p in files_below(folder) if p.name[0] != ".")


def test_what_was_only_begun_is_kept_and_can_be_forgotten(fetching: Fetching) -> None:
    fetching.serve({"tiny.bin": BYTES})
    fetching.server.faults["tiny.bin"] = Fault(times=99, seconds_a_chunk=0.05)
    fetching.cancel_at = 1
    assert fetching.problem(fetching.version("tiny.bin")).code == "cancelled"
    assert 0 < total_size(kept(fetching, fetching.version("tiny.bin"))) < len(BYTES)
    assert fetching.cached(fetching.version("tiny.bin")) is None
    assert forget(fetching, fetching.version("tiny.bin")) > 0
    assert kept(fetching, fetching.version("tiny.bin")) == ()


def test_joined_parts_go_with_the_file_that_was_made_of_them(fetching: Fetching) -> None:
    fetching.serve({"tiny.part_a": BYTES[:400_000], "tiny.part_b": BYTES[400_000:]})
    version = fetching.version("tiny.bin", parts={"none": ("tiny.part_a", "tiny.part_b")})
    joined = fetching(version)
    assert joined in {file.path for file in kept(fetching, version)}
    assert forget(fetching, version) == 2 * len(BYTES)
    assert not joined.exists()


def test_a_blob_stays_as_long_as_another_revision_links_to_it(huggingface: Fetching) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    version = huggingface.version("tiny.bin")
    path = huggingface(version)
    other = path.parent.with_name("0" * 40) / "tiny.bin"
    other.parent.mkdir()
    other.symlink_to(path.resolve())
    assert forget(huggingface, version) == 0
    assert not path.is_symlink() and other.read_bytes() == BYTES


def test_the_library_finds_its_cache_in_order_after_a_removal(huggingface: Fetching, tmp_path: Path) -> None:
    huggingface.serve({"tiny.q4_0.bin": BYTES, "tiny.q8_0.bin": BYTES[::-1]})
    for name in ("tiny.q4_0.bin", "tiny.q8_0.bin"):
        huggingface(huggingface.version(name))
    cache = tmp_path / "huggingface" / "hub"
    forget(huggingface, huggingface.version("tiny.q4_0.bin"))
    left = huggingface_hub.scan_cache_dir(cache)
    assert not left.warnings and left.size_on_disk == len(BYTES)
    forget(huggingface, huggingface.version("tiny.q8_0.bin"))
    left = huggingface_hub.scan_cache_dir(cache)
    assert not left.warnings and not left.repos


def test_a_link_that_leads_out_of_the_cache_goes_without_what_it_leads_to(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    path = huggingface(huggingface.version("tiny.bin"))
    (mine := tmp_path / "mine.bin").write_bytes(BYTES)
    path.unlink()
    path.symlink_to(mine)
    assert forget(huggingface, huggingface.version("tiny.bin")) in (0, len(BYTES))
    assert mine.read_bytes() == BYTES and not path.is_symlink()


def test_a_folder_that_really_is_elsewhere_is_refused_before_anything_is_deleted(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "file").write_text("mine")
    (root := tmp_path / "cache").mkdir()
    (root / "inside").write_text("ours")
    (root / "link").symlink_to(elsewhere)
    paths = (root / "inside", root / "link" / "file")
    with pytest.raises(Problem) as caught:
        delete(CachedFile(path, path, root) for path in paths)
    assert caught.value.code == "outside_cache"
    assert all(path.exists() for path in paths)
