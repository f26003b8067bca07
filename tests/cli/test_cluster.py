"""`xinference cluster`: the commands for the nodes of a cluster and for join tokens."""

from __future__ import annotations

import pytest

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run
from xinference.cli.output import show_problem
from xinference.errors import Problem
from xinference.nodes.join_tokens import parse_token, use_token


def test_the_command_that_joins_a_machine_is_one_line_of_output(run: Run, canned: Canned) -> None:
    made = {"token_id": "t1", "command": "xinference-worker --endpoint http://HOST:9997 --token xt_t1.s@f"}
    canned.answers["POST", "/v1/cluster/tokens"] = Answer(made)
    result = run("cluster", "token", "create")
    assert result.stdout == f"{made['command']}\n"
    assert "Replace HOST" in result.stderr


NODE = {
    "node_id": "nb5f48742a7f6",
    "name": "box1",
    "state": "READY",
    "address": "10.77.0.2:9998",
    "version": "0.1.0",
    "serves": None,
    "lost_in": None,
    "labels": {"zone": "b"},
    "cpu_count": 8,
    "memory_total": 25276059648,
    "memory_available": 23339405312,
    "gpus": [],
    "replicas": ["smollm2-instruct-rep0", "three-rep0"],
}


def test_a_wide_table_of_nodes_has_labels_and_no_column_without_a_value(run: Run, canned: Canned) -> None:
    canned.answers["GET", "/v1/cluster/nodes"] = Answer([NODE])
    header, _, row = run("cluster", "info", "--wide").stdout.splitlines()
    assert "Labels" in header and "GPUs" not in header
    assert "21.7 of 23.5 GiB" in row and "zone=b" in row


def test_a_drain_says_that_replicas_are_still_there(run: Run, canned: Canned) -> None:
    canned.answers["POST", "/v1/cluster/nodes/box1/drain"] = Answer(NODE)
    said = " ".join(run("cluster", "drain", "box1").stderr.split())
    assert "gets no new replicas. Its 2 replicas move to other nodes" in said and "is drained" not in said
    assert "`xinference cluster undrain box1`" in said


@pytest.mark.parametrize("left", [0, -5])
def test_a_token_without_uses_left_is_used(run: Run, canned: Canned, left: int) -> None:
    token = {"token_id": "30f27c7b", "expires": 4e9, "uses_left": left, "revoked": False}
    canned.answers["GET", "/v1/cluster/tokens"] = Answer([token])
    assert run("cluster", "token", "list").stdout.split()[-1] == "used"


def test_the_hint_of_a_refused_join_token_is_not_about_api_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Problem) as caught:
        use_token(None, parse_token(f"xt_6628e0c8.{'A' * 43}@95fa9e980281676d"), 0.0)
    show_problem(caught.value)
    said = capsys.readouterr().err
    assert "xinference cluster token create" in said and "--api-key" not in said


MADE = {"token_id": "t1", "command": "xinference-worker --endpoint http://HOST:9997 --token xt_t1.s@f"}


@pytest.mark.parametrize(
    ("host", "url", "advice"),
    [("10.0.0.1", "http://10.0.0.1:9997", "at another address"), ("127.0.0.1", "http://127.0.0.1:9997", "0.0.0.0")],
)
def test_the_command_that_joins_a_machine_has_the_address_of_the_supervisor(
    run: Run, canned: Canned, host: str, url: str, advice: str
) -> None:
    canned.answers["POST", "/v1/cluster/tokens"] = Answer(MADE | {"host": host})
    result = run("cluster", "token", "create")
    assert result.stdout == f"xinference-worker --endpoint {url} --token xt_t1.s@f\n"
    assert advice in " ".join(result.stderr.split()) and "Replace HOST" not in result.stderr


def test_a_token_is_for_a_number_of_machines_or_for_any_number(run: Run, canned: Canned) -> None:
    result = run("cluster", "token", "create", "--uses", "3", "--any-number")
    assert result.exit_code == 2 and "--uses and --any-number" in result.stderr


def test_the_time_until_a_node_is_lost_promises_nothing_for_replicas_that_no_other_node_may_run(
    run: Run, canned: Canned
) -> None:
    canned.answers["GET", "/v1/cluster/nodes"] = Answer([NODE | {"state": "UNREACHABLE", "lost_in": 27.6}])
    said = run("cluster", "info").stderr
    assert "nb5f48742a7f6 (box1) is LOST in 28 s if it does not return." in said and "other nodes may run" in said
