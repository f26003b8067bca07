"""What runs on a node of Ray: which home a raylet gets, and when a worker is found, refused or missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xinference.fabric import ray_starter
from xinference.fabric.ray_starter import _claim, _environment, _identity, _lives, find_or_start

pytestmark = pytest.mark.process
OURS = "n00000000000a"


def order(home: Path, **fields: Any) -> dict[str, Any]:
    made = {"supervisor": OURS, "endpoint": "http://10.0.0.1:9997", "link_port": 9999, "worker_port": 0, "labels": {}}
    return made | {"home": str(home), "token": "", "joins_anew": False, "not_on": ""} | fields


@pytest.fixture
def living() -> Iterator[dict[str, Any]]:
    """A process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield _identity(process.pid)
    process.kill()
    process.communicate()


def _worker(home: Path, living: dict[str, Any], **fields: Any) -> None:
    home.mkdir(exist_ok=True)
    known = {"supervisor": OURS, "endpoint": "http://10.0.0.1:9997", "link_port": 9999}
    (home / "worker.json").write_text(json.dumps(living | known | fields))


def _joined(home: Path, supervisor: str = OURS) -> None:
    (home / "cluster").mkdir(parents=True)
    (home / "cluster" / "membership.json").write_text(json.dumps({"node_id": "n1", "supervisor": supervisor}))


def test_each_living_raylet_of_a_machine_has_a_home_and_the_next_one_takes_that_of_a_dead_one(
    tmp_path: Path, living: dict[str, Any]
) -> None:
    base, me = tmp_path / "home", _identity(os.getpid())
    dead = living | {"started": "0"}
    assert _claim(base, dead) == base
    assert _claim(base, living) == base, "its owner is dead"
    assert _claim(base, me) == tmp_path / "home-2"
    assert _claim(base, living) == base and _claim(base, me) == tmp_path / "home-2"


def test_a_process_with_the_pid_of_a_dead_one_is_another(living: dict[str, Any]) -> None:
    assert _lives(living) and not _lives(living | {"started": "1"}) and not _lives({"pid": 2**22 + 1, "started": "1"})


def test_a_node_without_a_worker_needs_a_token_and_says_which_node_it_was(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert find_or_start(order(home)) == {"home": str(home), "was": ""}
    _joined(home)
    assert find_or_start(order(home)) == {"home": str(home), "was": "n1"}
    assert find_or_start(order(home, supervisor="n2"))["was"] == "", "it was the node of another supervisor"


def test_a_worker_that_runs_is_found(tmp_path: Path, living: dict[str, Any]) -> None:
    home = tmp_path / "home"
    _worker(home, living)
    assert find_or_start(order(home)) == {"refusal": "its worker has not joined yet"}
    _joined(home)
    assert find_or_start(order(home)) == {"node_id": "n1", "pid": living["pid"], "home": str(home)}


def test_the_worker_of_another_supervisor_is_left_alone(tmp_path: Path, living: dict[str, Any]) -> None:
    _worker(tmp_path / "home", living, supervisor="n2")
    assert "a worker of another supervisor" in find_or_start(order(tmp_path / "home", token="xt"))["refusal"]
    assert _lives(living)


def test_the_worker_of_a_supervisor_that_has_moved_is_ended_for_the_next_one(
    tmp_path: Path, living: dict[str, Any]
) -> None:
    _worker(tmp_path / "home", living)
    found = find_or_start(order(tmp_path / "home", link_port=9998))
    assert found["was"] == "" and "refusal" not in found and not _lives(living)


def test_a_node_without_xinference_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_starter, "PACKAGES", ("xinference", "no_such_package_at_all"))
    refusal = find_or_start(order(tmp_path / "home"))["refusal"]
    assert refusal.startswith("no_such_package_at_all can't be imported") and "xinference[cluster]" in refusal


def test_the_machine_of_a_supervisor_that_runs_models_gets_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xinference.hardware.machine_id.machine_id", lambda: "m1")
    assert "runs models itself" in find_or_start(order(tmp_path / "home", not_on="m1"))["refusal"]
    assert "refusal" not in find_or_start(order(tmp_path / "home", not_on="m2"))


def test_a_worker_gets_the_variables_of_the_raylet_without_those_of_ray() -> None:
    given = {"RAY_AUTH_TOKEN": "secret", "CUDA_VISIBLE_DEVICES": "1", "XINFERENCE_JOIN_TOKEN": "xt", "EMPTY": ""}
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=given) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        assert _environment(process.pid) == {"CUDA_VISIBLE_DEVICES": "1", "EMPTY": ""}
        process.kill()
