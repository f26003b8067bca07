"""The logs of replicas on other nodes: read over the link, labelled, followed, and refused where a node is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.responses import StreamingResponse

from tests.api.test_logs import following
from xinference.api.routes import logs
from xinference.config import Settings
from xinference.control import followed_logs
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.log_position import LogPosition, Piece
from xinference.nodes.local import LocalNode
from xinference.nodes.node import MAX_LOG_BYTES
from xinference.process.node_log import NodeLog

GONE = Problem(Code.NODE_GONE, "The node n1 is not linked.")


class Worker:
    """A node that reads files as `LocalNode` does, until the test cuts its link."""

    def __init__(self) -> None:
        self.is_cut = False
        self.read = LocalNode(Settings(), {}, {}, cast(Any, None), cast(Any, None)).read_log

    async def read_log(self, path: Path, lines: int, position: LogPosition | None) -> Piece:
        if self.is_cut:
            raise GONE
        return await self.read(path, lines, position)


def server(paths: Mapping[str, Any], **workers: Worker) -> Any:
    """A server with one model whose replicas have these logs, and these workers, which are called box-n1 and so on."""
    controller = following(cast(Any, dict(paths)))
    members = [SimpleNamespace(node_id=node_id, name=f"box-{node_id}") for node_id in workers]
    controller.cluster = SimpleNamespace(members=members)
    controller.planner = SimpleNamespace(nodes=workers)
    return controller


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "r1.log"
    path.write_bytes(b"one\ntwo\nthree \xff\n")
    return path


async def test_the_log_of_one_replica_is_read_on_from_its_place(log: Path) -> None:
    controller = server({"m-rep0": NodeLog("n1", log)}, n1=Worker())
    answer = await logs.logs(controller, "m", 2, False, None, None)
    assert answer.body == b"two\nthree \xff\n"
    log.write_bytes(log.read_bytes() + b"four\n")
    rest = await logs.logs(controller, "m", 2, False, 0, answer.headers[logs.OFFSET_HEADER])
    assert rest.body == b"four\n"


async def test_several_replicas_are_labelled_by_their_nodes_and_one_that_is_gone_has_the_reason(
    log: Path, tmp_path: Path
) -> None:
    here = tmp_path / "r0.log"
    here.write_text("here\n")
    cut = Worker()
    cut.is_cut = True
    paths = {"m-rep0": here, "m-rep1": NodeLog("n1", log), "m-rep2": NodeLog("n2", log), "m-rep3": NodeLog("n3", log)}
    answer = await logs.logs(server(paths, n1=Worker(), n2=cut), "m", 1, False, None, None)
    assert bytes(answer.body).decode("utf-8", "replace") == (
        "==> m-rep0 <==\nhere\n"
        "==> m-rep1 on box-n1 <==\nthree \N{REPLACEMENT CHARACTER}\n"
        "==> m-rep2 on box-n2 <==\nThe node n1 is not linked.\n"
        "==> m-rep3 on n3 <==\nThis server has no node n3.\n"
    )


@pytest.mark.parametrize("offset", [None, "0"])
async def test_the_log_of_a_node_that_is_gone_is_refused(log: Path, offset: str | None) -> None:
    worker = Worker()
    worker.is_cut = True
    with pytest.raises(Problem) as refused:
        await logs.logs(server({"m-rep0": NodeLog("n1", log)}, n1=worker), "m", 2, False, None, offset)
    assert refused.value.code == Code.NODE_GONE


@pytest.mark.parametrize("offset", [None, "0"])
async def test_following_waits_for_a_node_that_is_gone_for_a_time(
    log: Path, offset: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_logs, "LOG_POLL_SECONDS", 0.0)
    worker, present = Worker(), [True]
    paths = {"m-rep0": NodeLog("n1", log)}
    controller = server(paths, n1=worker)
    controller.has = lambda each: present[0]
    answer = await logs.logs(controller, "m", 40, True, None, offset)
    assert isinstance(answer, StreamingResponse)

    def cut() -> None:
        worker.is_cut = True
        log.write_bytes(log.read_bytes() + b"four\n")

    def mend() -> None:
        worker.is_cut = False

    steps: list[Callable[[], None]] = [cut, lambda: None, mend, lambda: present.__setitem__(0, False)]

    async def sleep(seconds: float) -> bool:
        if steps:
            steps.pop(0)()
        return False

    monkeypatch.setattr(controller.stop_notice, "sleep", sleep)
    received = b"".join([cast(bytes, part) async for part in answer.body_iterator])
    assert received == b"one\ntwo\nthree \xff\nfour\n"


async def test_a_node_reads_a_limited_piece(tmp_path: Path) -> None:
    path = tmp_path / "r1.log"
    path.write_bytes(b"x" * MAX_LOG_BYTES + b"end\n")
    read = Worker().read
    last = await read(path, 5, None)
    assert len(last.data) == MAX_LOG_BYTES and last.data.endswith(b"end\n")
    first = await read(path, 0, LogPosition("", 0))
    assert first.data == b"x" * MAX_LOG_BYTES
    assert (await read(path, 0, first.end)).data == b"end\n"
