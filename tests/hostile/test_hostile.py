"""Hostile requests of a client with a key for models: no fetch, no file, no lost engine, no late answer of others.

The requests go to llama.cpp with a projector, to the Transformers server where its environment is built, and to
stand-ins of vLLM and SGLang that record what reaches them. `make hostile` sends 10,000; `HOSTILE_SEED` chooses others,
`HOSTILE_FIRST` the number of the first one, to repeat what a run has found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.record import Record
from tests.formats.gguf_model import write_gguf
from tests.formats.mmproj_writer import write_mmproj
from tests.hostile.attack import EXPECTED, OURS, Attack, Observations
from tests.hostile.canaries import Canaries, canaries
from tests.hostile.generator import Generator
from tests.hostile.judge import Judge
from tests.support.built_environments import link_environments
from tests.support.home import Home
from tests.support.polling import until
from tests.support.ports import free_port
from xinference.config import Settings
from xinference.engines.transformers.engine import VERSION
from xinference.environments.environments import Environments
from xinference.environments.spec import EnvironmentSpec
from xinference.units import GIB, MIB

ROOT = Path(__file__).parents[2]
HF = ROOT / "tests" / "assets" / "tiny-llama2-chat-hf"
WIDTH = json.loads((HF / "config.json").read_text())["hidden_size"]
REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "300"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))
FIRST = int(os.environ.get("HOSTILE_FIRST", "0"))
REPORT = os.environ.get("HOSTILE_REPORT")
CLIENTS = 6
STAND_INS = {"vllm": "vLLM", "sglang": "SGLang"}
#: Seconds that a model may be lost: the time in which a hung engine is noticed, and its restart.
LOST_SECONDS = 45.0
#: Seconds that an ordinary request may take beyond its usual time.
LATE_SECONDS = 5.0
ENGINE_BYTES = 2 * GIB
SERVER_BYTES = 1 * GIB


@dataclass
class Target:
    """A server with its models."""

    home: Home
    server: subprocess.Popen[bytes]
    log: Path
    models: tuple[str, ...]
    records: dict[str, Record]
    key: str
    """Of a client that may use models."""
    owner_key: str


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Canaries]:
    with canaries(tmp_path) as set_up:
        yield set_up


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    env = {
        "XINFERENCE_PROBE_SECONDS": "2",
        "XINFERENCE_HUNG_SECONDS": "15",
        "XINFERENCE_HUNG_COMPUTING_SECONDS": "30",
        "XINFERENCE_RESTART_BACKOFF_SECONDS": "0.2",
        "XINFERENCE_ENGINE_MEMORY_MARGIN": "1GiB",
    }
    home = Home(tmp_path / "home", free_port(), env)
    home.path.mkdir()
    link_environments(home.path)
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        words = [sys.executable, "-m", "tests.fakes.stand_in_server", *STAND_INS.values()]
        server = subprocess.Popen(
            words, cwd=ROOT, env=home.environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        until("the server answers", home.answers)
        yield _launched(home, server, log, tmp_path)
    finally:
        home.clean_up()


def _launched(home: Home, server: subprocess.Popen[bytes], log: Path, folder: Path) -> Target:
    weights = folder / "weights"
    weights.mkdir()
    gguf = write_gguf(HF, "Q8_0", weights / "tiny.Q8_0.gguf")
    write_mmproj(weights / "mmproj-tiny-f32.gguf", WIDTH)
    records = {uid: Record(folder / f"{uid}.jsonl") for uid in STAND_INS}
    tiny = {"model_name": "llama-2-chat", "model_size_in_billions": 7}
    launches: dict[str, dict[str, Any]] = {
        "llama": {"model_name": str(weights), "n_ctx": 1024, "n_parallel": 4, "embedding": True, "pooling": "mean"},
        **{
            uid: tiny
            | {"model_format": "ggufv2", "quantization": "Q8_0", "model_path": str(gguf), "model_engine": engine}
            | {"script": {"record": str(records[uid].file), "chunks": 2}}
            for uid, engine in STAND_INS.items()
        },
    }
    spec = EnvironmentSpec("Transformers", VERSION, "cpu")
    if Environments(Settings(home=home.path)).find(spec) is not None:
        launches["transformers"] = tiny | {"model_format": "pytorch", "quantization": "none", "model_path": str(HF)}
        launches["transformers"] |= {"model_engine": "Transformers", "context_length": 512}
    for uid, launch in launches.items():
        answer = home.launch(model_uid=uid, **launch)
        assert answer.status_code == 200, answer.text
    owner_key = (home.path / "owner.key").read_text().strip()
    made = home.cli("keys", "create")
    assert made.returncode == 0, made.stderr
    return Target(home, server, log, tuple(launches), records, made.stdout.strip(), owner_key)


@pytest.mark.live
@pytest.mark.timeout(120 + REQUESTS)
def test_no_request_reaches_further_or_takes_anything_from_others(target: Target, traps: Canaries) -> None:
    generator = Generator(SEED, target.models, traps)
    attack = Attack(target.home, target.server.pid, target.key, target.owner_key, target.models)
    usual = {model: _slowest(attack, model) for model in target.models}
    for record in target.records.values():
        record.take()  # of the ordinary requests
    seen = attack.run(generator, range(FIRST, FIRST + REQUESTS), CLIENTS)
    faults = [*_faults_of_answers(seen), *_faults_of_engines(seen, usual), *_faults_of_records(target, traps)]
    if traps.fetches:
        faults.append(f"the trap's address was fetched: {traps.fetches[:3]}")
    if reads := traps.reads:
        faults.append(f"the trap's file was opened or read {reads} times")
    log = target.log.read_text(errors="replace")
    faults += [f"the server's log has {word!r}" for word in ("Traceback", "A defect in xinference") if word in log]
    assert target.server.poll() is None, log[-4000:]
    for model in target.models:
        until(f"{model} answers", partial(_answers, attack, model), LOST_SECONDS)
    _report(seen, faults)
    assert not faults, "\n".join([*faults[:20], log[-4000:]])
    # Else the requests are too far from what an engine gets to find anything.
    assert seen.statuses().get(200, 0) > REQUESTS / 10


def _answers(attack: Attack, model: str) -> bool:
    return attack.ask(model) == 200


def _slowest(attack: Attack, model: str) -> float:
    """The longest time of ordinary requests with as many clients as the attack has, in seconds."""

    def timed(_: int) -> float:
        began = time.monotonic()
        assert attack.ask(model) == 200
        return time.monotonic() - began

    with ThreadPoolExecutor(CLIENTS) as pool:
        return max(pool.map(timed, range(5 * CLIENTS)))


def _faults_of_answers(seen: Observations) -> Iterator[str]:
    for outcome in seen.outcomes:
        what = f"request {outcome.request.number} ({', '.join(outcome.request.kinds)}) to {outcome.request.model}"
        where = f"{what} on {outcome.request.path}: {outcome.request.body[:600]!r}"
        if outcome.status not in EXPECTED:
            yield f"{where} got {outcome.status} {outcome.answer!r} after {outcome.seconds:.1f} s"
        elif outcome.status >= 400:
            if not outcome.answer.startswith(b"{"):
                yield f"{where} got {outcome.status} without JSON: {outcome.answer!r}"
            if OURS.encode() in outcome.answer or outcome.status == 500:
                yield f"{where} got {outcome.status} {outcome.answer!r}"


def _faults_of_engines(seen: Observations, usual: dict[str, float]) -> Iterator[str]:
    for model, seconds in seen.down.items():
        if seconds > LOST_SECONDS:
            yield f"{model} was lost for {seconds:.0f} s"
    for model, size in seen.engine_bytes.items():
        if size > ENGINE_BYTES:
            yield f"the engine of {model} had {size // MIB} MiB"
    if seen.server_bytes > SERVER_BYTES:
        yield f"the server had {seen.server_bytes // MIB} MiB"
    for neighbour in seen.neighbours:
        restarts = [at for at, _ in seen.pids.get(neighbour.model, [])[1:]]
        for began, seconds, status in neighbour.times:
            # A request that was in flight when its engine ended may fail, or wait for the restart.
            if any(began - LOST_SECONDS < restart < began + seconds + LOST_SECONDS for restart in restarts):
                continue
            if status != 200:
                yield f"another client of {neighbour.model} got {status}"
            elif seconds > usual[neighbour.model] + LATE_SECONDS:
                yield f"another client of {neighbour.model} waited {seconds:.1f} s"


def _faults_of_records(target: Target, traps: Canaries) -> Iterator[str]:
    for uid, record in target.records.items():
        judge = Judge(STAND_INS[uid], traps)
        arrived = record.take()
        assert arrived, f"nothing has reached {uid}"
        yield from filter(None, map(judge.fault, arrived))


def _report(seen: Observations, faults: list[str]) -> None:
    """Print what was measured, and write it to the file of HOSTILE_REPORT."""
    slowest = sorted(seen.outcomes, key=lambda outcome: -outcome.seconds)[:5]
    figures = {
        "requests": len(seen.outcomes),
        "statuses": seen.statuses(),
        "restarts": {model: len(pids) - 1 for model, pids in seen.pids.items()},
        "longest loss in s": {model: round(seconds, 1) for model, seconds in seen.down.items()},
        "engine MiB": {model: size // MIB for model, size in seen.engine_bytes.items()},
        "server MiB": seen.server_bytes // MIB,
        "slowest ordinary request in s": {
            each.model: round(max((seconds for _, seconds, _ in each.times), default=0.0), 2)
            for each in seen.neighbours
        },
        "slowest hostile requests": [
            (each.request.number, each.request.model, each.request.kinds, each.status, round(each.seconds, 1))
            for each in slowest
        ],
        "faults": faults,
    }
    print(json.dumps({name: value for name, value in figures.items() if name != "faults"}, indent=1))
    if REPORT:
        Path(REPORT).write_text(json.dumps(figures, indent=1))
