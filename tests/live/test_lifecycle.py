"""A model is unloaded, loaded and restarted without being forgotten, and the same launch is the same model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx2
import pytest

from tests.support.home import SMOLLM2, UID, Home
from tests.support.polling import until

pytestmark = pytest.mark.live
CONTEXT = ("--n_ctx", "512", "--n_parallel", "1")


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Iterator[Home]:
    """A home whose server the first command starts."""
    made = make_home()
    yield made
    made.cli("stop")


def complete(home: Home, model: str) -> httpx2.Response:
    return home.chat(model=model)


def test_the_same_launch_is_the_same_model_in_every_state(home: Home) -> None:
    first = home.cli("launch", *SMOLLM2, *CONTEXT, "--alias", "gpt-4o")
    assert (first.returncode, first.stdout) == (0, f"{UID}\n"), first.stderr
    pid = home.engine_pid()
    again = home.cli("launch", *SMOLLM2, *CONTEXT)
    assert (again.stdout, home.engine_pid()) == (f"{UID}\n", pid) and "already running" in again.stderr

    assert home.cli("unload", UID).returncode == 0
    refused = complete(home, "gpt-4o")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_unloaded")
    assert home.cli("restart").returncode == 0, "the server starts again"
    assert home.instance()["status"] == "UNLOADED"
    loaded = home.cli("launch", *SMOLLM2, *CONTEXT)
    assert loaded.stdout == f"{UID}\n" and "loading it again" in loaded.stderr
    answer = complete(home, "gpt-4o")
    assert (answer.status_code, answer.json()["model"]) == (200, UID)

    pid = home.engine_pid()
    assert home.cli("restart").returncode == 0
    assert home.engine_pid() == pid and complete(home, UID).status_code == 200, "the engine runs on"
    assert home.cli("restart", UID).returncode == 0
    assert home.engine_pid() != pid and complete(home, UID).status_code == 200
    assert [each["model_uid"] for each in httpx2.get(f"{home.url}/v1/models/instances").json()] == [UID]


def test_a_launch_that_fails_leaves_the_list_and_its_reason_stays(home: Home) -> None:
    failed = home.cli("launch", *SMOLLM2, *CONTEXT, "-u", "lost", "--n_threads", "99999999")
    assert failed.returncode == 1 and "Last lines of the engine" in failed.stderr
    until("it has left", lambda: httpx2.get(f"{home.url}/v1/models/instances").json() == [])
    (record,) = json.loads(home.cli("history", "--json").stdout)
    assert (record["model_uid"], record["status"], record["ready_at"]) == ("lost", "failed", None)
    assert "FAILED" in home.cli("list", "--all").stdout
    logs = home.cli("logs", "lost")
    # The engine aborts: of its last lines, those that it has not written are lost.
    assert logs.returncode == 0 and "build_info" in logs.stdout, "the last log of the failed launch"
