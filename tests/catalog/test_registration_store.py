"""A home's own models: persisted whole, taken up again, and never in the way of the server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.catalog.custom import EMBEDDING_1, VERSION_1, VERSION_2, Json, changed
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families
from xinference.errors import Problem

REMOTE = changed(VERSION_2, {"model_specs": VERSION_2["model_specs"][:2]})


def opened(home: Path) -> Registrations:
    registrations = Registrations(home, builtin_families())
    registrations.load()
    return registrations


def text(document: Json) -> str:
    return json.dumps(document)


def test_a_registered_model_is_among_the_families_beside_the_built_in_ones(tmp_path: Path) -> None:
    registrations = opened(tmp_path)
    registrations.add("LLM", text(VERSION_1), persist=False)
    assert "my-llama" in registrations.families and "llama-2-chat" in registrations.families
    assert registrations.find("MY-Llama") is not None
    assert not (tmp_path / "model").exists()


def test_a_persisted_one_is_there_for_the_next_server_as_it_was_given_and_another_is_not(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add("LLM", text(VERSION_1), persist=True)
    first.add("LLM", text(REMOTE), persist=False)
    assert json.loads((tmp_path / "model" / "llm" / "my-llama.json").read_text()) == VERSION_1
    second = opened(tmp_path)
    assert "my-llama" in second.families and "my-qwen" not in second.families


def test_what_an_older_xinference_persisted_is_taken_up_and_can_be_removed(tmp_path: Path) -> None:
    file = tmp_path / "model" / "v2" / "llm" / "anything.json"
    file.parent.mkdir(parents=True)
    file.write_text(text(REMOTE))
    registrations = opened(tmp_path)
    assert "my-qwen" in registrations.families
    registrations.remove("LLM", "my-qwen", [])
    assert not file.exists() and "my-qwen" not in opened(tmp_path).families


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"model_name": "x"}', text(VERSION_1 | {"model_name": "qwen3"}).encode()]
)
def test_a_broken_file_is_named_and_keeps_nothing_else_from_being_there(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path).add("LLM", text(VERSION_1), persist=True)
    broken = tmp_path / "model" / "llm" / "broken.json"
    broken.write_bytes(content)
    registrations = opened(tmp_path)
    assert [(b.name, b.path) for b in registrations.broken] == [("broken", broken)]
    assert str(broken) in caplog.text
    assert "my-llama" in registrations.families
    registrations.remove("LLM", "broken", [])
    assert not broken.exists() and not registrations.broken


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama-2-chat", "conflicts with existing model llama-2-chat"),
        ("LLAMA-2-chat", "conflicts with existing model LLAMA-2-chat"),
        ("My-Llama", "Model My-Llama already registered"),
    ],
)
def test_a_name_that_is_taken_is_refused_whatever_its_case(tmp_path: Path, name: str, said: str) -> None:
    registrations = opened(tmp_path)
    registrations.add("LLM", text(VERSION_1), persist=True)
    with pytest.raises(Problem, match=said) as caught:
        registrations.add("LLM", text(VERSION_1 | {"model_name": name}), persist=True)
    assert caught.value.status == 400
    assert [p.name for p in (tmp_path / "model" / "llm").iterdir()] == ["my-llama.json"]


def test_a_name_of_another_type_is_taken_too(tmp_path: Path) -> None:
    registrations = opened(tmp_path)
    registrations.add("LLM", text(VERSION_1), persist=False)
    with pytest.raises(Problem, match="already registered"):
        document = changed(EMBEDDING_1, {"model_uri": ..., "model_name": "my-llama"})
        registrations.add("embedding", text(document), persist=False)


def test_a_model_uri_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="Invalid model URI /models/bge") as caught:
        opened(tmp_path).add("embedding", text(EMBEDDING_1), persist=True)
    assert caught.value.status == 400 and not (tmp_path / "model").exists()


def test_one_that_is_used_stays_until_what_uses_it_is_gone(tmp_path: Path) -> None:
    registrations = opened(tmp_path)
    registrations.add("LLM", text(VERSION_1), persist=True)
    with pytest.raises(Problem, match="my-llama is used by the model mine") as caught:
        registrations.remove("LLM", "my-llama", ["mine"])
    assert caught.value.hint == "End it first: `xinference terminate mine`."
    assert caught.value.status == 409 and "my-llama" in registrations.families
    registrations.remove("LLM", "MY-llama", [])
    assert "my-llama" not in registrations.families and "my-llama" not in opened(tmp_path).families


@pytest.mark.parametrize(("name", "status"), [("llama-2-chat", 400), ("my-lama", 404)])
def test_what_is_not_the_users_own_cannot_be_removed(tmp_path: Path, name: str, status: int) -> None:
    registrations = opened(tmp_path)
    registrations.add("LLM", text(VERSION_1), persist=False)
    with pytest.raises(Problem) as caught:
        registrations.remove("LLM", name, [])
    assert caught.value.status == status


def test_a_disk_that_cannot_be_written_leaves_nothing_registered(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("not a folder")
    registrations = opened(tmp_path)
    with pytest.raises(Problem, match="cannot be written"):
        registrations.add("LLM", text(VERSION_1), persist=True)
    assert "my-llama" not in registrations.families


def test_the_unfinished_file_of_a_killed_server_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "model" / "llm"
    folder.mkdir(parents=True)
    draft, other = folder / ".mine.json.partial", folder / ".notes"
    draft.write_text("{")
    other.write_text("the user's own")
    Registrations(tmp_path, builtin_families()).load()
    assert not draft.exists() and other.exists()


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"version": 1e999}', b"\xff\xfe", b"null", b""])
def test_no_content_of_a_file_keeps_the_server_from_starting(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "model" / "llm"
    folder.mkdir(parents=True)
    (folder / "mine.json").write_bytes(content)
    registrations = Registrations(tmp_path, builtin_families())
    registrations.load()
    assert [broken.name for broken in registrations.broken] == ["mine"]
