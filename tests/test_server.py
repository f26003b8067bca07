"""What keeps a server from starting."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xinference import server
from xinference.config import Settings
from xinference.errors import EXIT_IN_USE, InUse
from xinference.process.home import own_home


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_given_port_that_is_in_use_is_a_conflict(busy_port: int) -> None:
    with pytest.raises(InUse) as refused, server.listen(Settings(port=busy_port), port_is_given=True):
        pass
    assert (refused.value.code, refused.value.status) == ("port_taken", 409)


def test_a_home_has_one_server(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with own_home(settings):
        with pytest.raises(InUse) as refused, own_home(settings):
            pass
        assert (refused.value.code, refused.value.status) == ("home_taken", 409)
    with own_home(settings):
        pass  # it is free again


@pytest.mark.parametrize(("arguments", "status"), [(["--port", "PORT"], EXIT_IN_USE), (["--port", "70000"], 1)])
def test_the_exit_status_distinguishes_a_port_in_use_from_other_failures(
    arguments: list[str], status: int, busy_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["server", *(word.replace("PORT", str(busy_port)) for word in arguments)])
    assert server.main() == status
