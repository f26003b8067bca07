"""Following the output of a deployment ends with the deployment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xinference.api.routes import logs
from xinference.control import followed_logs
from xinference.control.followed_logs import follow_log, follow_logs
from xinference.control.stop_notice import StopNotice
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.log_position import LogPosition, Piece
from xinference.process.log_links import joined
from xinference.process.log_reader import read_from, read_last_lines


async def test_following_ends_with_the_deployment_after_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_logs, "LOG_POLL_SECONDS", 0.0)
    first, second = tmp_path / "r1.log", tmp_path / "r2.log"
    first.write_text("old\n")
    paths, present = [first], [True]

    def current() -> dict[str, Path]:
        return {"m-rep1": paths[0]}

    received = ""
    async with asyncio.timeout(30):
        pieces: dict[followed_logs.Log, Piece] = {first: read_last_lines(first, 9)}
        async for part in follow_logs(pieces, b"old\n", current, lambda: present[0], StopNotice()):
            received += part.decode()
            match received.splitlines()[-1]:
                case "old":
                    first.write_text("old\nnew\n")
                case "new":  # the engine is started again, with a log of its own
                    second.write_text("again\n")
                    paths[:] = [second]
                case "again":
                    second.write_text("again\nlast words\n")
                    present[0] = False
    assert received == "old\nnew\nagain\nlast words\n"


async def test_following_ends_with_a_line_when_the_server_stops(tmp_path: Path) -> None:
    log, notice = tmp_path / "r1.log", StopNotice()
    log.write_text("old\n")
    received = b""
    async with asyncio.timeout(30):
        pieces: dict[followed_logs.Log, Piece] = {log: read_last_lines(log, 9)}
        async for part in follow_logs(pieces, b"old\n", lambda: {"m-rep1": log}, lambda: True, notice):
            received += part
            notice.give()
    assert received == b"old\n\nThe server is stopping.\n"


async def test_the_output_of_several_replicas_is_below_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_logs, "LOG_POLL_SECONDS", 0.0)
    paths = {name: tmp_path / f"{name}.log" for name in ("m-rep1", "m-rep2")}
    for name, path in paths.items():
        path.write_text(f"old of {name}\n")
    tails = await logs._tails(paths, 10)
    text = joined({name: piece.data.decode() for name, piece in tails.items()})
    assert text == "==> m-rep1 <==\nold of m-rep1\n==> m-rep2 <==\nold of m-rep2\n"
    for path in reversed(paths.values()):
        path.write_text(path.read_text() + "new\n")
    pieces: dict[followed_logs.Log, Piece] = {paths[name]: piece for name, piece in tails.items()}
    followed = follow_logs(pieces, b"", lambda: paths, lambda: False, StopNotice())
    received = b"".join([part async for part in followed]).decode()
    assert received == "==> m-rep1 <==\nnew\n==> m-rep2 <==\nnew\n"


async def test_following_from_a_place_ends_with_the_process_and_says_nothing_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_logs, "LOG_POLL_SECONDS", 0.0)
    log, ended, notice = tmp_path / "r1.log", [False], StopNotice()
    log.write_text("one\ntwo\n")
    piece, received = read_from(log, LogPosition("", 4)), b""
    assert piece.data == b"two\n"
    async with asyncio.timeout(30):
        async for part in follow_log(log, piece, lambda: ended[0], notice):
            received += part
            if part == b"two\n":
                log.write_text("one\ntwo\nthree\n")
            else:
                log.write_text("one\ntwo\nthree\nlast words\n")
                ended[0] = True
    assert received == b"two\nthree\nlast words\n"
    notice.give()
    assert [
        part async for part in follow_log(log, Piece(b"", read_from(log, piece.end).end), lambda: False, notice)
    ] == []


async def test_the_answer_has_the_place_from_which_a_program_reads_on(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.log" for name in ("m-rep0", "m-rep1")}
    for path in paths.values():
        path.write_text("one\ntwo\n")
    controller = following(paths)
    whole = await logs.logs(controller, "m", 40, False, 0, None)
    assert whole.body == b"one\ntwo\n"
    with paths["m-rep0"].open("a") as file:
        file.write("three\n")
    rest = await logs.logs(controller, "m", 40, False, 0, whole.headers["X-Log-Offset"])
    assert rest.body == b"three\n"
    again = await logs.logs(controller, "m-rep0", 40, False, None, rest.headers["X-Log-Offset"])
    assert (again.body, again.headers["X-Log-Offset"]) == (b"", rest.headers["X-Log-Offset"])
    stream = await logs.logs(controller, "m", 1, True, 0, None)
    assert LogPosition.parse(stream.headers["X-Log-Offset"]) == LogPosition.parse(whole.headers["X-Log-Offset"])
    for query, cause in (((None, "0"), "m has 2 replicas"), ((0, "x-y"), "not a place"), ((0, "-1"), "not a place")):
        with pytest.raises(Problem, match=cause) as refused:
            await logs.logs(controller, "m", 40, False, *query)
        assert refused.value.status == 400
    with pytest.raises(Problem, match="no replica 7") as missing:
        await logs.logs(controller, "m", 40, False, 7, None)
    assert missing.value.status == 404


def following(paths: dict[str, Path]) -> Any:
    """A controller with one model whose replicas have these logs."""
    replicas = [{"replica_id": number} for number in range(len(paths))]
    owner = SimpleNamespace(uid="m", replica_logs=paths, instance={"replicas": replicas})

    def deployment(name: str) -> Any:
        if name != "m":
            raise Problem(Code.MODEL_NOT_FOUND, "There is no such model.")
        return owner

    return SimpleNamespace(
        deployment=deployment,
        deployments=lambda: [owner],
        has=lambda each: True,
        log_dir=Path("/nowhere"),
        stop_notice=StopNotice(),
    )


def test_following_one_replica_goes_on_until_its_number_is_gone(tmp_path: Path) -> None:
    replicas: list[dict[str, Any]] = [{"replica_id": 0}, {"replica_id": 1}]
    paths = {name: tmp_path / name for name in ("m-rep0", "m-rep1")}
    owner = SimpleNamespace(uid="m", replica_logs=paths, instance={"replicas": replicas})
    present = [True]

    def deployment(name: str) -> Any:
        if name != "m":
            raise Problem(Code.MODEL_NOT_FOUND, "There is no such model.")
        return owner

    controller = SimpleNamespace(
        deployment=deployment, deployments=lambda: [owner], has=lambda each: present[0], log_dir=tmp_path
    )
    read_logs, goes_on = logs._find(cast(Any, controller), "m-rep1")
    assert read_logs() == {"m-rep1": paths["m-rep1"]}
    owner.replica_logs = {}  # it is started again
    assert goes_on()
    replicas.pop()
    assert not goes_on(), "the other replica runs on"
    replicas.append({"replica_id": 1})
    present[0] = False
    assert not goes_on()
