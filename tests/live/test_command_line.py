"""The commands, as typed, against a real server that the first of them starts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.home import SMOLLM2, UID, Home
from tests.support.polling import until


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home]) -> Home:
    return make_home()


def test_launch_starts_a_server_where_none_is(home: Home) -> None:
    ended = home.cli("launch", "--model-engine", "llama.cpp", *SMOLLM2)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{UID}\n"
    assert "Starting a server" in ended.stderr and "1 slot x 4096 tokens of context" in ended.stderr


def test_the_same_launch_under_its_uid_changes_nothing(home: Home) -> None:
    before = home.engine_pid()
    assert home.cli("launch", *SMOLLM2, "--model-uid", UID).returncode == 0
    assert home.engine_pid() == before


def test_another_launch_under_a_taken_uid_is_refused(home: Home) -> None:
    ended = home.cli("launch", *SMOLLM2, "--model-uid", UID, "--n_ctx", "512")
    assert ended.returncode == 1
    assert "taken" in ended.stderr


def test_list_shows_it_as_a_table_and_as_json(home: Home) -> None:
    assert UID in home.cli("list").stdout
    assert json.loads(home.cli("list", "--json").stdout)[0]["status"] == "READY"


def test_chat_and_generate_answer_an_argument_and_a_pipe(home: Home) -> None:
    asked = home.cli("chat", "-u", UID, "--temperature", "0", "How many days are in a week?")
    assert "7 days" in asked.stdout and asked.returncode == 0
    piped = home.cli("generate", "-u", UID, "--max-tokens", "4", stdin="The capital of France is")
    assert piped.returncode == 0 and piped.stdout.strip()


def test_engine_registrations_and_logs_tell_what_there_is(home: Home) -> None:
    assert "llama.cpp" in home.cli("engine", "-n", "llama-2-chat").stdout
    assert "llama-2-chat" in home.cli("registrations").stdout
    assert "model loaded" in home.cli("logs", UID).stdout


def test_a_dry_run_prints_the_plan_and_starts_nothing(home: Home) -> None:
    before = len(home.processes())
    plan = json.loads(home.cli("launch", *SMOLLM2, "--dry-run", "--json").stdout)
    assert (plan["slots"], plan["context_length"]) == (1, 4096)
    assert plan["memory"]["total"] < 350 * 2**20
    assert len(home.processes()) == before


def test_terminate_ends_the_engine_and_stop_the_server(home: Home) -> None:
    assert home.cli("terminate", "--model-uid", UID).returncode == 0
    until("only the server is left", lambda: len(home.processes()) == 1, 15)
    assert home.cli("stop").returncode == 0
    until("nothing is left", home.nothing_left, 15)
