"""The OpenAPI document is true: what is sent by it is answered by it, and nothing that is sent breaks anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.api.routes import scope_of
from tests.live.fuzzing import Target, fuzz, operations
from tests.support.home import UID, Home
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def empty_home(tmp_path: Path) -> Iterator[Home]:
    """A server that runs nothing, has nothing in its cache and fetches nothing."""
    home = Home(tmp_path / "home", free_port(), {"XINFERENCE_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")})
    home.path.mkdir()
    home.serve()
    yield home
    home.clean_up()


def check(home: Home, target: Target, *, without_key: bool = False) -> Counter[int]:
    seen: Counter[int] = Counter()
    wrong: list[BaseException] = []
    for operation in operations(target):
        method, path = operation.method.upper(), operation.path
        try:
            statuses = fuzz(operation, target, without_key=without_key)
            is_open = scope_of(method, path) == "open"
            assert is_open or set(statuses.without_key) <= {400, 401}, statuses.without_key
        except (AssertionError, BaseExceptionGroup, OSError) as error:  # the whole list is worth more than its first
            error.add_note(f"{method} {path}")
            wrong.append(error)
        else:
            print(f"{method} {path}: {json.dumps(statuses.seen)}")
            seen.update(statuses.seen)
    if wrong:
        raise BaseExceptionGroup("answers that the document does not have", wrong)
    assert home.answers()
    return seen


def test_a_server_without_models_answers_as_its_document_says(empty_home: Home) -> None:
    seen = check(empty_home, Target(empty_home.url))
    assert seen[200] and seen[400] and seen[404]


def test_a_server_with_a_model_answers_as_its_document_says(make_home: Callable[..., Home]) -> None:
    home = make_home(XINFERENCE_OFFLINE="1")
    home.serve()
    assert home.launch(model_name=UID, model_uid="m", n_ctx=512).status_code == 200
    seen = check(home, Target(home.url, ["m"]))
    assert seen[200] and seen[400] and seen[404]
    assert httpx2.get(f"{home.url}/v1/models/m", timeout=10).json()["status"] == "READY"


def test_a_server_with_keys_answers_as_its_document_says_and_without_one_not_at_all(empty_home: Home) -> None:
    made = httpx2.post(f"{empty_home.url}/v1/keys", json={"scopes": ["use", "manage"]}, timeout=10)
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    seen = check(empty_home, Target(empty_home.url, headers=headers), without_key=True)
    assert seen[200] and seen[400] and seen[404]
