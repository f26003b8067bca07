"""Run every launch line of llama-2-chat's page as printed, against a hub on loopback that has the tiny model.

    python -m tests.conformance [--questions 12] [--only llama.cpp] [--every N] [--environments FOLDER]

Each line that this host has the hardware for is launched, asked questions at temperature 0 whose answers must come
word for word, and terminated. The others must be refused with the true reason. A table at the end has a row for each
line; the exit status is 1 if one of them went wrong. `--environments` names a folder of engine environments that are
built already; without it a launch builds what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.conformance.page import LaunchLine, launch_lines
from tests.fakes.hub.llama2 import llama2_hub
from tests.fakes.hub.loopback import serve
from tests.support.home import Home
from tests.support.ports import free_port
from xinference.engines.vllm.packings import FOUR_BIT_NEEDS
from xinference.hardware.devices import Host, read_host
from xinference.local_commands import docs

ASSETS = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
UID = "llama-2-chat"
#: Longest that one line may take, in seconds; vLLM's start is most of it.
LINE_SECONDS = 600.0


@dataclass(frozen=True)
class Row:
    """What became of one line."""

    line: LaunchLine
    good: bool
    outcome: str
    seconds: float
    refused: bool = False
    """It can't run here, and was to be refused."""


def refusal(line: LaunchLine, host: Host) -> str | None:
    """Words that the reason must have if this host can't run the line; None: it must run."""
    if line.engine == "SGLang" and not host.gpus:
        return "no CUDA device"
    four_bit = line.words[line.words.index("--model-format") + 1] in ("gptq", "awq")
    if line.engine == "vLLM" and four_bit and not host.gpus and not host.cpu_flags.issuperset(FOUR_BIT_NEEDS):
        return "AVX-512"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=12, help="questions asked of each model")
    parser.add_argument("--only", help="one engine")
    parser.add_argument("--every", type=int, default=1, help="take every Nth line")
    parser.add_argument("--environments", type=Path, help="folder of engine environments that are built already")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        rows = run(Path(folder), options.questions, options.only, options.every, options.environments)
    show(rows)
    return 0 if rows and all(row.good for row in rows) else 1


def run(folder: Path, questions: int, only: str | None, every: int, environments: Path | None = None) -> list[Row]:
    """Every chosen line in turn, each against the same server and hub."""
    page = next(p for p in docs.write(folder / "docs") if p.name == f"{UID}.rst").read_text(encoding="utf-8")
    lines = [line for line in launch_lines(page) if only in (None, line.engine)][::every]
    pairs = json.loads((ASSETS / "qa.json").read_text(encoding="utf-8"))
    step = max(1, len(pairs) // questions)
    asked = [(pair["question"], pair["answer"]) for pair in pairs[::step]]
    rows = []
    if environments is not None:
        (folder / "environments").symlink_to(environments.resolve())
    with serve(llama2_hub(ASSETS, folder / "made")) as hub:
        home = Home(folder, free_port(), hub_environment(folder, hub.url))
        home.serve()
        try:
            for number, line in enumerate(lines, 1):
                rows.append(try_line(home, line, asked))
                print(f"{number:3}/{len(lines)} {_row(rows[-1])}", file=sys.stderr, flush=True)
        finally:
            home.clean_up()
    return rows


def hub_environment(folder: Path, url: str) -> dict[str, str]:
    """Both hubs' real clients, sent to the loopback hub, with caches of their own."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(folder / "hf"),
        "MODELSCOPE_ENDPOINT": url,
        "MODELSCOPE_CACHE": str(folder / "modelscope"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def try_line(home: Home, line: LaunchLine, asked: list[tuple[str, str]]) -> Row:
    """Type the line, and see that what it promises is so."""
    started = time.perf_counter()
    ended = home.run(line.words, seconds=LINE_SECONDS)
    if reason := refusal(line, read_host()):
        said = ended.stderr.strip().splitlines()[0] if ended.stderr.strip() else "nothing was said"
        good = ended.returncode == 1 and reason in ended.stderr and "Traceback" not in ended.stderr
        return Row(line, good, said, time.perf_counter() - started, refused=True)
    if ended.returncode != 0 or ended.stdout.strip() != UID:
        return Row(line, False, ended.stderr.strip()[-300:], time.perf_counter() - started)
    try:
        right = [answer(home, question) == expected for question, expected in asked]
    finally:
        home.cli("terminate", "--model-uid", UID)
    outcome = f"{sum(right)} of {len(right)} answers word for word"
    return Row(line, all(right), outcome, time.perf_counter() - started)


def answer(home: Home, question: str, uid: str = UID) -> str:
    """The model's answer, without the space that Llama-2's form puts before it."""
    body = {"model": uid, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 200}
    reply = httpx2.post(f"{home.url}/v1/chat/completions", json=body, timeout=60)
    if reply.status_code != 200:
        return reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text.removeprefix(" ")


def show(rows: list[Row]) -> None:
    """One row a line, and the count."""
    print(f"{'spec':>4}  {'engine':<12}  {'quantization':<12}  {'s':>5}  {'':<4}  outcome")
    for row in rows:
        print(_row(row))
    good = sum(row.good for row in rows)
    launched = sum(row.good and not row.refused for row in rows)
    print(f"{good} of {len(rows)} lines as promised: {launched} launched and answered, {good - launched} refused truly")


def _row(row: Row) -> str:
    line, mark = row.line, "ok" if row.good else "FAIL"
    return f"{line.spec:>4}  {line.engine:<12}  {line.quantization:<12}  {row.seconds:5.1f}  {mark:<4}  {row.outcome}"


if __name__ == "__main__":
    sys.exit(main())
