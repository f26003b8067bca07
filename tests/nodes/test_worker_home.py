"""The home of a worker, and what it refuses before it joins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.ports import free_port
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes.joining import Membership, WorkerHome, invitation_of
from xinference.worker import WorkerOptions, run


def test_a_file_exists_while_the_worker_is_linked(tmp_path: Path) -> None:
    home, linked = WorkerHome(tmp_path), tmp_path / "linked"
    home.note_link(is_up=True)
    assert linked.exists()
    home.note_link(is_up=False)
    home.note_link(is_up=False)
    assert not linked.exists()


def test_a_disk_that_cannot_be_written_ends_no_worker(tmp_path: Path) -> None:
    home = WorkerHome(tmp_path / "missing")
    home.note_link(is_up=True)
    home.note_link(is_up=False)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("endpoint", ["ftp://10.0.0.1", "http://10.0.0.1:99970", "http://"])
async def test_an_endpoint_that_is_no_url_of_a_server_is_refused_before_it_is_asked(endpoint: str) -> None:
    with pytest.raises(Problem, match="is not a URL") as caught:
        await invitation_of(endpoint)
    assert caught.value.code == Code.BAD_ENDPOINT and "--endpoint" in str(caught.value.hint)


async def test_a_port_at_which_nothing_listens_is_named_with_the_reason_in_words() -> None:
    with pytest.raises(Problem, match=r"No server answers at http://127\.0\.0\.1:\d+: Connection refused\."):
        await invitation_of(f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_worker_has_no_address_at_which_nobody_reaches_it(tmp_path: Path, host: str) -> None:
    with pytest.raises(Problem, match=f"No other machine can connect to {host}"):
        run(WorkerOptions(host=host), Settings(home=tmp_path / "home"))


def test_a_worker_without_a_route_to_its_supervisor_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_route(*arguments: object, **options: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.getaddrinfo", no_route)
    WorkerHome(tmp_path / "home" / "cluster").save(Membership("n1", "s1", "10.0.0.1", 9999))
    with pytest.raises(Problem, match=r"supervisor at 10\.0\.0\.1:9999 cannot be reached .*: Network is unreachable\."):
        run(WorkerOptions(), Settings(home=tmp_path / "home"))
