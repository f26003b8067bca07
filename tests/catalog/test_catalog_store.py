"""Updates of the catalog: what is refused changes nothing, what is taken is there at once and can be rolled back."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.catalog.catalogs import BROKEN, catalog, entry
from xinference.catalog import catalog_store
from xinference.catalog.catalog_differences import differences
from xinference.catalog.catalog_document import read_catalog
from xinference.catalog.catalog_store import CatalogStore, Selection
from xinference.catalog.catalog_version import BUILTIN_VERSION, order
from xinference.catalog.models import ModelFamily
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families
from xinference.errors import Problem


def opened(home: Path) -> CatalogStore:
    store = CatalogStore(home, builtin_families())
    store.load()
    return store


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "catalog").glob("*.json")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_update_changes_nothing(tmp_path: Path, name: str) -> None:
    store = opened(tmp_path)
    store.apply(catalog(entry("good"), version="2098.1"), "good.json")
    before, stored = dict(store.families), files(tmp_path)
    text, reason = BROKEN[name]
    with pytest.raises(Problem) as refused:
        store.apply(text, "evil.json")
    assert refused.value.code in ("bad_catalog", "catalog_older") and "evil.json" in refused.value.cause
    assert reason in refused.value.cause and len(refused.value.cause) < 800
    assert (dict(store.families), files(tmp_path)) == (before, stored)
    assert dict(opened(tmp_path).families) == before


def test_an_update_is_there_at_once_after_a_restart_and_rolled_back(tmp_path: Path) -> None:
    store = opened(tmp_path)
    applied = store.apply(catalog(entry("new-chat"), entry("qwen3", context_length=7)), "a.json")
    assert applied is not None and applied.families == 2
    for each in (store, opened(tmp_path)):
        assert each.families["new-chat"].context_length == 4096 and each.families["qwen3"].context_length == 7
        assert list(each.families) == sorted([*builtin_families(), "new-chat"])
        assert each.version == "2099.1.1"
    store.rollback()
    for each in (store, opened(tmp_path)):
        assert dict(each.families) == dict(builtin_families()) and each.version == BUILTIN_VERSION
    assert [*files(tmp_path)] == ["state.json"]
    with pytest.raises(Problem, match="no earlier one"):
        store.rollback()


def test_rollbacks_go_back_one_update_each_and_permit_a_later_update_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(7):
        store.apply(catalog(entry(f"chat-{number}"), version=f"2099.{number}"), "x")
    assert [each.version for each in store.entries] == [f"2099.{number}" for number in range(2, 7)]
    assert len(files(tmp_path)) == 1 + len(store.entries)
    store.rollback()
    assert "chat-5" in store.families and "chat-6" not in store.families
    assert store.apply(catalog(entry("chat-6"), version="2099.6"), "x") is not None


def test_the_same_update_changes_nothing_and_another_one_needs_a_larger_version(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.apply(catalog(), "x") is not None
    stored = files(tmp_path)
    assert store.apply(catalog(), "x") is None
    with pytest.raises(Problem, match="in use with other families"):
        store.apply(catalog(entry("other")), "x")
    assert files(tmp_path) == stored


def test_only_the_selected_families_are_taken(tmp_path: Path) -> None:
    store = opened(tmp_path)
    document = catalog(entry("a"), entry("b"), entry("c", model_type="embedding", model_ability=["embed"]))
    store.apply(document, "x", Selection("embedding"))
    assert set(store.updates) == {"c"} and store.version == BUILTIN_VERSION
    store.apply(document, "x", Selection(model_name="A"))
    assert set(opened(tmp_path).updates) == {"a", "c"}
    with pytest.raises(Problem, match="no family of this name"):
        store.apply(document, "x", Selection("rerank"))
    store.apply(document, "x")
    assert set(store.updates) == {"a", "b", "c"} and store.version == "2099.1.1"


@pytest.mark.parametrize("damage", ["missing", "changed", "truncated", "state", "state of another form"])
def test_a_damaged_update_leaves_the_built_in_catalog_and_a_warning_that_names_the_file(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path)
    store.apply(catalog(entry("first"), version="2098"), "x")
    second = store.apply(catalog(), "x")
    assert second is not None
    path = tmp_path / "catalog" / f"{second.sha256}.json"
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(catalog(entry("evil")))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:50])
    else:
        path = tmp_path / "catalog" / "state.json"
        path.write_text("{" if damage == "state" else '{"entries": [{"version": "../x"}]}')
    with caplog.at_level(logging.WARNING):
        damaged = opened(tmp_path)
    assert dict(damaged.families) == dict(builtin_families()) and str(path) in caplog.text
    assert damaged.problem is not None and str(path) in damaged.problem.cause
    if path.name != "state.json":
        damaged.rollback()
        assert "first" in damaged.families
    assert damaged.apply(catalog(entry("again"), version="2100"), "x") is not None
    assert "again" in opened(tmp_path).families


def test_a_rollback_passes_over_damaged_updates(tmp_path: Path) -> None:
    store = opened(tmp_path)
    first = store.apply(catalog(entry("first"), version="2098"), "x")
    store.apply(catalog(), "x")
    assert first is not None
    (tmp_path / "catalog" / f"{first.sha256}.json").unlink()
    store.rollback()
    assert store.entries == () and dict(store.families) == dict(builtin_families())


def test_a_release_that_is_newer_than_the_update_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).apply(catalog(version="2098"), "x")
    monkeypatch.setattr(catalog_store, "BUILTIN_VERSION", "2099")
    store = opened(tmp_path)
    assert store.current is None and store.problem is None and "some-chat" not in store.families


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.apply(catalog(version="2098"), "x")
    (tmp_path / "catalog" / ".state.json.partial").mkdir()
    with pytest.raises(Problem, match="cannot be written"):
        store.apply(catalog(entry("new")), "x")
    assert "new" not in store.families and "new" not in opened(tmp_path).families


def test_a_registered_model_hides_an_update_of_its_name(tmp_path: Path) -> None:
    registrations = Registrations(tmp_path, builtin_families())
    registrations.load()
    document = {"version": 2, "model_name": "Mine", "model_family": "other", "model_ability": ["chat"],
                "model_lang": ["en"],
                "context_length": 11, "model_specs": [{"model_format": "ggufv2", "model_size_in_billions": 1,
                "quantization": "Q4_0", "model_id": "me/mine", "model_file_name_template": "x.gguf"}]}  # fmt: skip
    registrations.add("LLM", json.dumps(document), persist=True)
    store = opened(tmp_path)
    store.apply(catalog(entry("mine"), entry("other")), "x")
    again = Registrations(tmp_path, builtin_families())
    for each in (registrations, again):
        each.use_catalog(store.families, store.updates)
        if each is again:
            each.load()
        assert each.broken == () and each.families["Mine"].context_length == 11
        assert "mine" not in each.families and "other" in each.families
        assert len(each.families) == len(list(each.families)) == len(builtin_families()) + 2
        assert each.update("mine") is None and each.update("OTHER") is not None
    registrations.remove("LLM", "Mine", [])
    assert registrations.families["mine"].context_length == 4096
    with pytest.raises(Problem, match="conflicts with existing model"):
        registrations.add("LLM", json.dumps(document), persist=False)


def test_differences_name_the_fields_and_the_specs() -> None:
    one, other = catalog_families(entry("a"), entry("b")), catalog_families(entry("b", context_length=7), entry("c"))
    changed = differences(one, other)
    assert changed == {"added": ["c"], "removed": ["a"], "changed": {"b": ["context_length"]}}
    grown = entry("b")
    grown["model_specs"][0]["quantizations"].append("Q2_K")
    assert differences(one, catalog_families(grown))["changed"] == {"b": ["ggufv2 1_8"]}


def catalog_families(*entries: dict[str, Any]) -> dict[str, ModelFamily]:
    return dict(read_catalog(catalog(*entries), "x", {}).by_name)


def test_versions_are_ordered_by_their_numbers() -> None:
    ordered = ["1", "1.0.1", "1.9", "1.10", "2", "2026.11.29", "2026.12.1"]
    assert sorted(set(ordered), key=order) == ordered and order("1.0") == order("1")
