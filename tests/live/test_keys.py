"""Keys as a user meets them: the command line, a server of one's own, and OpenAI's SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.support.home import SMOLLM2, UID, Home

HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def guarded(make_home: Callable[..., Home]) -> Home:
    """A server with SmolLM2 whose first key was made before it started."""
    home = make_home()
    made = home.cli("keys", "create", "--name", "first", "--model", UID)
    assert made.returncode == 0, made.stderr
    (home.path / "first key").write_text(made.stdout.strip())
    home.serve()
    launched = home.cli("launch", *SMOLLM2)
    assert launched.returncode == 0, launched.stderr
    return home


@pytest.fixture
def sdk(guarded: Home) -> Iterator[Callable[[str], openai.OpenAI]]:
    clients: list[openai.OpenAI] = []

    def connect(key: str) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def create(home: Home, *flags: str) -> str:
    made = home.cli("keys", "create", *flags)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_a_key_that_was_made_before_the_server_started_talks_to_its_model(
    guarded: Home, sdk: Callable[[str], openai.OpenAI]
) -> None:
    client = sdk((guarded.path / "first key").read_text())
    assert [model.id for model in client.models.list()] == [UID]
    answer = client.chat.completions.create(model=UID, messages=HELLO, max_tokens=4)
    assert answer.usage is not None and answer.usage.completion_tokens == 4
    with pytest.raises(openai.PermissionDeniedError, match="does not permit the model 'another'"):
        client.chat.completions.create(model="another", messages=HELLO)


def test_without_a_key_or_with_a_wrong_one_the_sdk_says_that_it_is_the_key(
    sdk: Callable[[str], openai.OpenAI],
) -> None:
    for key in ("none", "sk-xinf-wrong"):
        with pytest.raises(openai.AuthenticationError) as caught:
            sdk(key).chat.completions.create(model=UID, messages=HELLO)
        assert caught.value.code == "invalid_api_key"


def test_a_revoked_key_ends_at_once_and_a_new_one_counts_at_once(
    guarded: Home, sdk: Callable[[str], openai.OpenAI]
) -> None:
    client = sdk(create(guarded, "--name", "short-lived"))
    assert [model.id for model in client.models.list()] == [UID]
    assert guarded.cli("keys", "revoke", "short-lived").returncode == 0
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_key_for_use_launches_nothing_and_this_homes_commands_do(guarded: Home) -> None:
    key = create(guarded, "--name", "user")
    refused = guarded.cli("terminate", "--model-uid", UID, "--api-key", key)
    assert refused.returncode == 1 and "Not enough permissions" in refused.stderr
    listed = guarded.cli("list", "--json")
    assert [instance["model_uid"] for instance in json.loads(listed.stdout)] == [UID]


def test_the_tokens_of_a_stream_count_and_the_sdk_is_told_when_to_come_back(
    guarded: Home, sdk: Callable[[str], openai.OpenAI]
) -> None:
    client = sdk(create(guarded, "--name", "frugal", "--tokens-per-minute", "20"))
    ask = client.chat.completions.create
    stream = ask(model=UID, messages=HELLO, max_tokens=20, stream=True)
    assert len(list(stream)) > 5
    with pytest.raises(openai.RateLimitError) as caught:
        ask(model=UID, messages=HELLO)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 120


def test_the_last_use_of_a_key_is_listed(guarded: Home, sdk: Callable[[str], openai.OpenAI]) -> None:
    key = create(guarded, "--name", "watched")
    sdk(key).models.list()
    entries = {entry["name"]: entry for entry in json.loads(guarded.cli("keys", "list", "--json").stdout)}
    assert entries["watched"]["last_used"] > entries["watched"]["created"]


def test_keys_and_their_use_are_the_same_after_a_restart(make_home: Callable[..., Home]) -> None:
    home = make_home()
    key = create(home, "--name", "a")
    process = home.serve()
    models = httpx2.get(f"{home.url}/v1/models", headers={"api_key": key})
    assert models.status_code == 200
    owner = (home.path / "owner.key").read_text()
    process.terminate()
    process.wait(30)
    assert not (home.path / "owner.key").exists()
    home.serve()
    assert httpx2.get(f"{home.url}/v1/models", headers={"x-api-key": key}).status_code == 200
    assert httpx2.get(f"{home.url}/v1/models", headers={"x-api-key": owner}).status_code == 401
    (entry,) = json.loads(home.cli("keys", "list", "--json").stdout)
    assert entry["last_used"] is not None


def test_a_server_listens_elsewhere_once_there_is_a_key(make_home: Callable[..., Home]) -> None:
    home = make_home(XINFERENCE_HOST="0.0.0.0")
    refused = home.cli("serve")
    assert refused.returncode == 1 and "keys create" in refused.stderr
    create(home)
    home.serve()
    assert httpx2.get(f"{home.url}/v1/models").status_code == 401
    assert home.cli("list").returncode == 0
    assert home.cli("keys", "off", "--yes").returncode == 0
    assert httpx2.get(f"{home.url}/v1/models").status_code == 401, "an exposed server never opens"
