"""Following the output of a deployment ends with the deployment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xinference.api.routes import logs
from xinference.control.stop_notice import StopNotice
from xinference.error_codes import Code
from xinference.errors import Problem


async def test_following_ends_with_the_deployment_after_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_POLL_SECONDS", 0.0)
    first, second = tmp_path / "r1.log", tmp_path / "r2.log"
    first.write_text("old\n")
    paths, present = [first], [True]

    def current() -> dict[str, Path]:
        return {"m-rep1": paths[0]}

    received = ""
    async with asyncio.timeout(30):
        async for part in logs._follow("old\n", {first: 4}, current, lambda: present[0], StopNotice()):
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
        async for part in logs._follow("old\n", {log: 4}, lambda: {"m-rep1": log}, lambda: True, notice):
            received += part
            notice.give()
    assert received == b"old\n\nThe server is stopping.\n"


async def test_the_output_of_several_replicas_is_below_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_POLL_SECONDS", 0.0)
    paths = {name: tmp_path / f"{name}.log" for name in ("m-rep1", "m-rep2")}
    for name, path in paths.items():
        path.write_text(f"old of {name}\n")
    text = logs._tails(paths, 10)
    assert text == "==> m-rep1 <==\nold of m-rep1\n==> m-rep2 <==\nold of m-rep2\n"
    assert logs._tails({"m-rep2": paths["m-rep2"]}, 10) == "old of m-rep2\n"
    positions = {path: path.stat().st_size for path in paths.values()}
    for path in reversed(paths.values()):
        path.write_text(path.read_text() + "new\n")
    followed = logs._follow("", positions, lambda: paths, lambda: False, StopNotice())
    received = b"".join([part async for part in followed]).decode()
    assert received == "==> m-rep1 <==\nnew\n==> m-rep2 <==\nnew\n"


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
