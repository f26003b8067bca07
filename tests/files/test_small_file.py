"""Small files are read whole, and everything that is no small regular file is refused at once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xinference.cli.saved_login import saved_token
from xinference.client.local_key import local_endpoint, owner_key
from xinference.config import Settings
from xinference.environments.installed import EnvironmentFolder
from xinference.files.durability import is_intact, marker_path
from xinference.files.small_file import MAX_BYTES, read_small, read_small_object, read_small_text
from xinference.formats.weight_index import read_shard_names
from xinference.hubs.listing import Listings
from xinference.launch.tuning_file import FILE, read_tunings
from xinference.process.home import _other_server

DEEP = b"[" * 100_000


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def own_link(path: Path) -> None:
    path.symlink_to(path)


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{\x00}\x00")


def deep(path: Path) -> None:
    path.write_bytes(DEEP)


def other_types(path: Path) -> None:
    path.write_bytes(b'{"pid": [], "endpoint": {}, "files": 7}')


NO_FILES = (pipe, device, folder, own_link, too_large)
DAMAGES = (*NO_FILES, no_text, deep, other_types)


def home_of(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, port=9997)


def token_path(tmp_path: Path) -> Path:
    (tmp_path / "auth").mkdir(exist_ok=True)
    return tmp_path / "auth" / hashlib.sha256(home_of(tmp_path).url.encode()).hexdigest()


def key_path(tmp_path: Path) -> Path:
    (tmp_path / "server.json").write_text(json.dumps({"pid": 1, "endpoint": home_of(tmp_path).url}))
    return home_of(tmp_path).owner_key_file


def listing_path(tmp_path: Path) -> Path:
    (tmp_path / "a--b").mkdir()
    return tmp_path / "a--b" / "r.json"


def marker(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"x")
    return marker_path(tmp_path / "weights")


#: The path of a state file in a home, and what reads it: nothing, if the file is damaged.
READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "tuned.json": (lambda home: home / FILE, read_tunings),
    "server.json": (lambda home: home / "server.json", lambda home: local_endpoint(home_of(home))),
    "the server of a taken home": (lambda home: home / "server.json", lambda home: _other_server(home_of(home))),
    "a stored list": (listing_path, lambda home: Listings(home).load("a/b", "r")),
    "the index of weights": (lambda home: home / "index.json", lambda home: read_shard_names(home / "index.json")),
}


@pytest.mark.parametrize("damage", NO_FILES)
def test_what_is_no_small_regular_file_is_refused_at_once(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / "file")
    with pytest.raises(OSError):
        read_small(tmp_path / "file")


def test_a_file_of_the_maximum_size_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_small(tmp_path / "link", 100) == b"x" * 100


def test_a_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    no_text(tmp_path / "file")
    with pytest.raises(OSError, match="UTF-8"):
        read_small_text(tmp_path / "file")


@pytest.mark.parametrize("content", [DEEP, b"[]", b"7", b"{", b"", b'{"a":' * 100_000, b'{"a": %s}' % (b"9" * 6000)])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(OSError, match="JSON object"):
        read_small_object(tmp_path / "file")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_state_file_counts_as_none(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    place, read = READERS[name]
    damage(place(tmp_path))
    assert not read(tmp_path)


@pytest.mark.parametrize("damage", [*NO_FILES, no_text])
def test_a_damaged_file_of_a_key_has_no_key(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(key_path(tmp_path))
    damage(token_path(tmp_path))
    assert owner_key(home_of(tmp_path)) is None and saved_token(home_of(tmp_path)) is None


@pytest.mark.parametrize("damage", [*NO_FILES, no_text])
def test_a_damaged_marker_says_that_a_file_may_be_damaged(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(marker(tmp_path))
    assert not is_intact(tmp_path / "weights")


def test_a_file_among_the_environments_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    assert EnvironmentFolder(tmp_path).all() == []
