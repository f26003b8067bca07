"""`xinference cluster`: the commands for the nodes of a cluster and for join tokens."""

from __future__ import annotations

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run


def test_the_command_that_joins_a_machine_is_one_line_of_output(run: Run, canned: Canned) -> None:
    made = {"token_id": "t1", "command": "xinference-worker --endpoint http://HOST:9997 --token xt_t1.s@f"}
    canned.answers["POST", "/v1/cluster/tokens"] = Answer(made)
    result = run("cluster", "token", "create")
    assert result.stdout == f"{made['command']}\n"
    assert "Replace HOST" in result.stderr
