"""No two engines of a server get one port."""

from __future__ import annotations

import pytest

from xinference.process import link
from xinference.process.link import Ports


def test_a_port_is_given_again_only_after_its_engine_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([5000, 5000, 5001, 5002, 5000])
    monkeypatch.setattr(link, "_unused_port", lambda: next(offered))
    ports = Ports()
    ports.hold(5002)
    assert ports.take() == 5000
    assert ports.take() == 5001, "the system offers 5000 again, because its engine has not opened it yet"
    ports.release(5000)
    assert ports.take() == 5000, "5002 is held by an adopted engine"
