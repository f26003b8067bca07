"""A server in chaos: whatever is killed, suspended, filled or locked, it settles, and keeps what it promised.

`make chaos` runs 500 events; `CHAOS_SEED` chooses another sequence of events. One half of them is with one gateway
process, the other half with two.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.events import Chaos
from tests.formats.gguf_model import write_gguf
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome
from tests.support.small_disk import SmallDisk, can_mount, small_disk

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
SEED = int(os.environ.get("CHAOS_SEED", "1"))
EVENTS = int(os.environ.get("CHAOS_EVENTS", "12"))
#: Number of events between two checks.
CHECK_EVERY = 4
CLOCK = Path(__file__).parent / "clock"


@contextlib.contextmanager
def _disk() -> Iterator[SmallDisk | None]:
    """A disk to fill, where this user may mount one."""
    if not can_mount():
        yield None
        return
    with small_disk("16m") as disk:
        yield disk


@pytest.fixture(params=[1, 2], ids=["one gateway", "two gateways"])
def chaos(request: pytest.FixtureRequest) -> Iterator[Chaos]:
    with tempfile.TemporaryDirectory(prefix="xi-") as folder, _disk() as disk:
        outside = Path(folder)
        weights = write_gguf(TINY, "Q8_0", outside / "tiny.gguf")
        clock = outside / "clock"
        env = {
            "XINFERENCE_STOP_SECONDS": "1",
            "XINFERENCE_DRAIN_SECONDS": "2",
            "XINFERENCE_RESTART_BACKOFF_SECONDS": "0.1",
            "XINFERENCE_RESTART_LIMIT": "20",
            "XINFERENCE_RECOVER_SECONDS": "5",
            "XINFERENCE_ON_DEMAND_WAIT_SECONDS": "20",
            "XINFERENCE_GATEWAY_WORKERS": str(request.param),
            "CHAOS_CLOCK": str(clock),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(CLOCK), os.environ.get("PYTHONPATH", "")))),
        }
        home = ScriptedHome((disk.path if disk else outside) / "home", free_port(), env, weights)
        home.path.mkdir()
        home.start()
        chaos = Chaos(home, disk, clock, SEED)
        try:
            yield chaos
        finally:
            if disk is not None:
                disk.free()
            chaos.close()
            home.clean_up()
            until("nothing uses the disk", home.nothing_left)


@pytest.mark.live
@pytest.mark.timeout(EVENTS * 60)
def test_no_sequence_of_faults_breaks_an_invariant(chaos: Chaos) -> None:
    for number in range(EVENTS // 2):
        chaos.step()
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            chaos.check()
    chaos.check()
    log = (chaos.home.weights.parent / "server.log").read_text(errors="replace")
    assert "A defect in xinference" not in log and "Traceback" not in log, log[-4000:]
    assert "Another server uses" not in log, "the run has started a server beside another one"
    chaos.stop()
