"""Mixed traffic for as long as is asked for: every answer is the right one, and nothing of the server grows.

`make soak MINUTES=30` is the long run; without it, the run is short, and only what is quick to fill has to be flat.
SOAK_REPORT names a file for the samples.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.formats.gguf_model import write_gguf
from tests.soak.samples import Sample, Sampler, Tolerance, growing, table
from tests.soak.traffic import Traffic
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
MINUTES = float(os.environ.get("SOAK_MINUTES", "0.25"))
REPORT = os.environ.get("SOAK_REPORT")
#: From this length on, everything with an end has reached it in the first half: 50 logs, 100 revoked keys, and the
#: series of models, which end after 15 minutes.
LONG_MINUTES = 20.0
#: Launches in the first half of a run, more than the logs that are kept.
LAUNCHES = 75
MEMORY: dict[str, Tolerance] = {
    "server_kib": Tolerance(6 * 1024, 0.05),
    "keeper_kib": Tolerance(2 * 1024, 0.1),
    "descriptors": Tolerance(6),
    "threads": Tolerance(3),
    "run_files": Tolerance(2),
}
DISK: dict[str, Tolerance] = {
    "store_kib": Tolerance(512, 0.1),
    "log_files": Tolerance(4),
    "log_kib": Tolerance(512, 0.05),
    "series": Tolerance(60, 0.05),
}
#: In a short run, the interpreter still fills its caches.
SHORT_SERVER = Tolerance(32 * 1024, 0.3)
#: What no run may exceed, by the limits of docs/recovery.md.
#: 50 logs are kept, each with the link of its model.
MAXIMUM = {"server_kib": 512 * 1024, "descriptors": 200, "threads": 64, "store_kib": 16 * 1024, "log_files": 120}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[ScriptedHome]:
    weights = write_gguf(TINY, "Q8_0", tmp_path / "tiny.gguf")
    env = {
        "XINFERENCE_STOP_SECONDS": "3",
        "XINFERENCE_MODEL_MEMORY": "8GiB",
        # llama.cpp writes some MiB in half an hour: its log, too, reaches its end in the first half.
        "XINFERENCE_LOG_BYTES": str(256 * 1024),
    }
    home = ScriptedHome(tmp_path / "home", free_port(), env, weights)
    home.path.mkdir()
    home.start()
    yield home
    home.clean_up()


@pytest.mark.live
@pytest.mark.timeout(MINUTES * 60 + 300)
def test_nothing_grows_under_mixed_traffic(home: ScriptedHome) -> None:
    llama = home.request("llama", model_engine="llama.cpp", n_ctx=1024, n_parallel=4, embedding=True, pooling="mean")
    assert home.launch(**llama).status_code == 200
    owner_key = (home.path / "owner.key").read_text().strip()
    launch = {name: value for name, value in home.request("soak", script={"chunks": 3}).items() if name != "model_uid"}
    traffic = Traffic(home, owner_key, launch, launch_seconds=max(1.0, MINUTES * 30 / LAUNCHES))
    assert home.server is not None
    server_log = home.weights.parent / "server.log"
    # In a short run, seven samples of a second half show the bursts of a busy machine as growth.
    interval = max(0.25, MINUTES * 60 / 360)
    with Sampler(home, home.server.pid, server_log, owner_key, interval) as sampler:
        traffic.run(MINUTES * 60)
    _report(sampler.samples, traffic)
    assert not traffic.faults, "\n".join(traffic.faults[:20])
    assert home.server.poll() is None
    log = server_log.read_text(errors="replace")
    assert "Traceback" not in log and "A defect in xinference" not in log, log[-4000:]
    is_long = MINUTES >= LONG_MINUTES
    tolerances = MEMORY | DISK if is_long else MEMORY | {"server_kib": SHORT_SERVER}
    assert growing(sampler.samples, tolerances) == []
    for measure, maximum in MAXIMUM.items():
        assert max(getattr(sample, measure) for sample in sampler.samples) < maximum, measure
    stopped = home.cli("stop")
    assert stopped.returncode == 0, stopped.stderr
    until("nothing is left", home.nothing_left, 60)


def _report(samples: list[Sample], traffic: Traffic) -> None:
    """Print what was done and measured, and write it to the file of SOAK_REPORT."""
    counts = dict(traffic.counts.most_common())
    print(f"{MINUTES:g} minutes: {counts}\n{table(samples)}")
    if REPORT:
        figures = {"minutes": MINUTES, "counts": counts, "faults": traffic.faults}
        Path(REPORT).write_text(json.dumps(figures | {"samples": [dataclasses.asdict(one) for one in samples]}))
