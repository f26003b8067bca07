"""Memory of engines compared with the planner's estimate: llama.cpp at several contexts and slots.

    python -m benchmarks.memory GGUF... [--full]
    python -m benchmarks.memory --engines ENVIRONMENTS   (Transformers and vLLM: see `engine_memory`)

Each engine is started as in a launch. "ready" is its resident memory once it answers, compared with the plan's
`loaded_bytes`; with --full every slot then gets a prompt of its whole context at the same time, and "full" is compared
with the plan's whole estimate. Exit status 1 if an estimate is off by more than a tenth.

Calibration of the overhead in `xinference.engines.llama_cpp.memory_model` (MiB; xllamacpp 2026.10, 2 cores,
AVX-512):

| file | context | slots | estimate at READY | measured | estimate full | measured |
|---|---|---|---|---|---|---|
| tiny Q4_0 (2 layers of 256) | 511 | 1 | 37 | 36 | 46 | 44 |
| tiny Q4_0 | 2047 | 4 | 52 | 52 | 72 | 71 |
| tiny Q4_0 | 4095 | 4 | 68 | 68 | 96 | 95 |
| tiny Q4_0 | 4095 | 16 | 164 | 167 | 252 | 250 |
| SmolLM2-135M Q4_1 | 511 | 1 | 163 | 160 | 173 | – |
| SmolLM2-135M Q4_1 | 2047 | 1 | 197 | 194 | 208 | – |
| SmolLM2-135M Q4_1 | 4095 | 4 | 512 | 511 | 540 | – |
| SmolLM2-135M Q4_1 | 8191 | 8 | 1592 | 1595 | 1672 | – |

llama.cpp's own lines for them: compute buffers of 15.1 MiB (511 tokens, 1 slot), 22.6 (8191, 1), 46.6 (8191, 4) and
78.6 (8191, 8) for SmolLM2; of the tiny Q4_0's 1.26 MiB 0.91 are held again as CPU_REPACK, of its Q6_K and Q8_0 none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import psutil
from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

from benchmarks.engine_memory import table
from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.llama_cpp.memory_model import MEMORY
from xinference.engines.replica_placement import Placement
from xinference.hardware.devices import read_host
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan, Sizing
from xinference.launch.request import LaunchRequest
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.sizing import size_launch
from xinference.weights import shape_reader

CASES = ((511, 1), (2047, 1), (2047, 4), (4095, 4), (4095, 16))
MIB = 1024 * 1024
TOLERATED = 0.1
START_SECONDS = 120.0


@dataclass(frozen=True)
class Row:
    file: str
    context: int
    slots: int
    estimated_ready: int
    ready: int
    estimated_full: int
    full: int | None

    @property
    def off(self) -> float:
        """The larger of the two relative errors."""
        errors = [self.estimated_ready / self.ready - 1]
        errors += [self.estimated_full / self.full - 1] if self.full else []
        return max(errors, key=abs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--engines", type=Path, help="folder of built environments: measure Transformers and vLLM")
    parser.add_argument("--full", action="store_true", help="also fill the context of every slot")
    arguments = parser.parse_args()
    if arguments.engines:
        return int(not table(arguments.engines))
    print("| file | context | slots | estimate at READY | measured | estimate full | measured | off by |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for file in arguments.files:
        for context, slots in CASES:
            row = measure(file, context, slots, arguments.full)
            rows.append(row)
            numbers = (row.estimated_ready, row.ready, row.estimated_full, row.full)
            shown = " | ".join("–" if n is None else f"{n / MIB:.0f}" for n in numbers)
            print(f"| {row.file} | {row.context} | {row.slots} | {shown} | {row.off:+.1%} |", flush=True)
    return int(any(abs(row.off) > TOLERATED for row in rows))


def measure(file: Path, context: int, slots: int, full: bool) -> Row:
    """Start one engine, measure its memory, and end it."""
    plan = planned(file, context, slots)
    assert plan.sizing is not None
    command = LlamaCpp().command(plan, "key", Placement(Path(sys.executable)))
    port = free_port()
    argv = [word.replace("{port}", str(port)) for word in command.argv]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, env={**os.environ, **unescaped(command.env)}, stdout=log, stderr=log)
        try:
            wait_ready(port)
            ready = resident(process.pid)
            filled = fill(port, process.pid, plan.sizing) if full else None
        finally:
            process.kill()
            process.wait()
    sizing = plan.sizing
    estimated_full = sizing.total_bytes + sizing.file_pages_bytes
    return Row(file.name, sizing.context_length, slots, sizing.loaded_bytes, ready, estimated_full, filled)


def planned(file: Path, context: int, slots: int) -> SizedPlan:
    """A launch of the file with a separate family."""
    spec = ModelSpec(model_format="ggufv2", model_size_in_billions=1, quantizations=("any",), sources=())
    family = ModelFamily(
        model_name="measured", context_length=context, model_lang=(), model_ability=("chat",), model_specs=(spec,)
    )
    version = ModelVersion(family=family, spec=spec, quantization="any")
    host, request = read_host(), LaunchRequest(model_name="measured", n_gpu=None)
    draft = LaunchDraft("measured", request, version, "llama.cpp", use_gpu=False, threads=host.physical_cores)
    bare = ResolvedLaunch(draft, file)
    requested = replace(bare, options={"n_ctx": context, "n_parallel": slots})
    shape, _ = shape_reader.read_shape(file, version)
    # The engine reads both from the sizing.
    return replace(size_launch(requested, file, shape, available(host, Occupancy()), MEMORY), launch=bare)


def unescaped(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value.replace("{ port}", "{port}") for name, value in env.items()}


def wait_ready(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the engine did not start")


def resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def fill(port: int, pid: int, sizing: Sizing) -> int:
    """Resident memory while every slot has answered a prompt of its whole context."""

    def ask(slot: int) -> None:
        # Prompts that differ in their first token share no cached prefix.
        body = {"prompt": [100 + slot] * sizing.context_length, "max_tokens": 1}
        httpx2.post(
            f"http://127.0.0.1:{port}/v1/completions",
            content=json.dumps(body),
            headers={"Authorization": "Bearer key", "Content-Type": "application/json"},
            timeout=None,
        ).raise_for_status()

    with ThreadPoolExecutor(sizing.slots) as pool:
        list(pool.map(ask, range(sizing.slots)))
    return resident(pid)


if __name__ == "__main__":
    end_as_ctrl_c()
    sys.exit(main())
