"""`xinference catalog`, on a server and without one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.catalog.catalogs import BROKEN, catalog, entry
from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run
from tests.support.ports import free_port
from xinference.catalog.catalog_version import BUILTIN_VERSION
from xinference.catalog.pack import main as pack
from xinference.catalog.registry import builtin_families

CHANGE = {"updated": True, "version": "2099", "added": ["new-chat"], "removed": [], "changed": {"qwen3": ["stop"]}}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run) -> Path:
    """A home without a server."""
    monkeypatch.delenv("XINFERENCE_ENDPOINT")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    return tmp_path


def test_a_file_is_sent_to_the_server(canned: Canned, run: Run, tmp_path: Path) -> None:
    canned.answers["POST", "/v1/catalog/update"] = Answer(CHANGE)
    file = tmp_path / "my.json"
    file.write_bytes(catalog())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    result = run("catalog", "update", "--from", str(file), "--sha256", digest, "-t", "LLM")
    assert result.exit_code == 0 and "added: new-chat\nchanged: qwen3 (stop)" in result.stdout
    assert "rollback" in result.stderr
    assert canned.asked[0].body == {
        "source": "my.json",
        "catalog": catalog().decode(),
        "sha256": digest,
        "model_type": "LLM",
        "model_name": None,
    }


def test_an_address_or_a_package_is_fetched_by_the_server(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/catalog/update"] = Answer(CHANGE | {"updated": False})
    for source in ("https://example.com/catalog.json", "some-catalog==2026.12.1"):
        result = run("catalog", "update", "--from", source)
        assert result.exit_code == 0 and "in use already" in result.stderr
        assert canned.asked[-1].body["source"] == source and canned.asked[-1].body["catalog"] is None


def test_a_file_with_another_hash_is_not_sent(canned: Canned, run: Run, tmp_path: Path) -> None:
    (tmp_path / "my.json").write_bytes(catalog())
    result = run("catalog", "update", "--from", str(tmp_path / "my.json"), "--sha256", "0" * 64)
    assert result.exit_code == 1 and "sha256" in result.stderr and canned.asked == []
    assert run("catalog", "update", "--from", str(tmp_path / "none.json")).exit_code == 1


def test_without_a_server_the_home_is_updated_listed_compared_and_rolled_back(home: Path, run: Run) -> None:
    file = home / "my.json"
    file.write_bytes(catalog(entry("new-chat")))
    assert "added: new-chat" in run("catalog", "diff", "--from", str(file)).stdout
    assert "No family differs." in run("catalog", "diff").stdout
    assert run("catalog", "update", "--from", str(file)).exit_code == 0
    assert "new-chat" in run("registrations", "new-").stdout
    listed = run("catalog", "list")
    assert "2099.1.1" in listed.stdout and BUILTIN_VERSION in listed.stdout
    assert json.loads(run("catalog", "list", "--json").stdout)["catalogs"][0]["state"] == "in use"
    assert json.loads(run("catalog", "diff", "--json").stdout)["added"] == ["new-chat"]
    assert "removed: new-chat" in run("catalog", "rollback").stdout
    assert "new-chat" not in run("registrations", "new-").stdout
    result = run("catalog", "rollback")
    assert result.exit_code == 1 and "no earlier one" in result.stderr


def test_without_a_source_nothing_is_fetched(home: Path, run: Run) -> None:
    result = run("catalog", "update")
    assert result.exit_code == 1 and "XINFERENCE_CATALOG_SOURCE" in result.stderr


@pytest.mark.parametrize("name", ["truncated", "huge", "older", "hostile file", "not UTF-8"])
def test_a_broken_file_changes_nothing(home: Path, run: Run, name: str) -> None:
    file = home / "my.json"
    file.write_bytes(BROKEN[name][0])
    result = run("catalog", "update", "--from", str(file))
    assert result.exit_code == 1 and "Traceback" not in result.stderr
    assert json.loads(run("catalog", "list", "--json").stdout)["version"] == BUILTIN_VERSION


def test_a_damaged_update_is_named_in_the_list(home: Path, run: Run) -> None:
    file = home / "my.json"
    file.write_bytes(catalog())
    run("catalog", "update", "--from", str(file))
    stored = next((home / "home" / "catalog").glob("[0-9a-f]*.json"))
    stored.write_text("{")
    result = run("catalog", "list")
    assert result.exit_code == 0 and stored.name in result.stderr


def test_the_registry_is_packed_as_a_catalog_that_changes_nothing(home: Path, run: Run) -> None:
    digest = pack("2099.1", home / "all.json")
    result = run("catalog", "update", "--from", str(home / "all.json"), "--sha256", digest, "--json")
    change = json.loads(result.stdout)
    assert change == {"updated": True, "version": "2099.1", "added": [], "removed": [], "changed": {}}
    assert json.loads(run("catalog", "list", "--json").stdout)["families"] == len(builtin_families())


def test_a_file_without_an_end_is_read_up_to_the_maximum(run: Run) -> None:
    result = run("catalog", "update", "--from", "/dev/zero")
    assert result.exit_code == 1 and "/dev/zero has more than 8388608 bytes." in result.stderr


def test_a_file_that_is_no_text_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b"\xff")
    result = run("catalog", "update", "--from", str(tmp_path / "latin.json"))
    assert result.exit_code == 1 and "latin.json is not UTF-8 text." in result.stderr
