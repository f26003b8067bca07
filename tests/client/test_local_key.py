from __future__ import annotations

import json
from pathlib import Path

import pytest

from xinference.client.local_key import local_endpoint, owner_key
from xinference.config import Settings


def home(path: Path, listens: str, asked: str = "") -> Settings:
    """A home whose server says that it listens at `listens`."""
    made = Settings(home=path, endpoint=asked)
    made.server_file.write_text(json.dumps({"pid": 1, "endpoint": listens}))
    made.owner_key_file.write_text("sk-owner\n")
    return made


@pytest.mark.parametrize("asked", ["http://127.0.0.1:7", "http://localhost:7", "http://localhost:7/"])
@pytest.mark.parametrize("listens", ["http://127.0.0.1:7", "http://0.0.0.0:7"])
def test_the_homes_own_server_gets_the_owners_key(tmp_path: Path, listens: str, asked: str) -> None:
    assert owner_key(home(tmp_path, listens, asked)) == "sk-owner"


@pytest.mark.parametrize(
    "asked", ["http://127.0.0.1:8", "http://192.168.0.1:7", "http://example.com:7", "https://127.0.0.1:7", "nonsense"]
)
def test_nobody_else_gets_it(tmp_path: Path, asked: str) -> None:
    assert owner_key(home(tmp_path, "http://127.0.0.1:7", asked)) is None


def test_a_server_at_another_address_of_this_machine_gets_it_there_alone(tmp_path: Path) -> None:
    assert owner_key(home(tmp_path, "http://192.168.0.1:7", "http://192.168.0.1:7")) == "sk-owner"
    assert owner_key(home(tmp_path, "http://192.168.0.1:7", "http://127.0.0.1:7")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"endpoint": 7}', '{"endpoint": "http://a.name:7"}'])
def test_an_unreadable_file_is_as_none(tmp_path: Path, text: str) -> None:
    settings = home(tmp_path, "")
    settings.server_file.write_text(text)
    assert local_endpoint(settings) is None and owner_key(settings) is None


def test_an_empty_home_has_none(tmp_path: Path) -> None:
    assert owner_key(Settings(home=tmp_path)) is None


def test_an_endpoint_for_all_addresses_is_reached_over_loopback(tmp_path: Path) -> None:
    assert local_endpoint(home(tmp_path, "http://0.0.0.0:7")) == "http://127.0.0.1:7"
    assert local_endpoint(home(tmp_path, "http://[::]:7")) == "http://[::1]:7"
