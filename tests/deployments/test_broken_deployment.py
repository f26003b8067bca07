"""A deployment whose stored row cannot be used."""

from __future__ import annotations

from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.error_codes import Code
from xinference.errors import Problem


async def test_a_broken_row_is_shown_with_its_reason_and_can_be_ended() -> None:
    broken = BrokenDeployment("one", Problem(Code.UNREADABLE_ROW, "It can't be read."), 5.0)
    assert broken.instance["problem"]["code"] == "unreadable_row"
    assert (broken.description["status"], broken.description["stage"]) == ("ERROR", "failed")
    assert broken.route.problem is broken.problem and broken.progress["stage"] == "failed"
    await broken.end("terminate")
