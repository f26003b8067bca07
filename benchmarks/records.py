"""What the record of each request costs on the data path, against another checkout and against no records.

    python -m benchmarks.records --before ../before [--before-python ../before/.venv/bin/python]

Each variant is a process with the whole data path and an engine in memory (`tests/gateway/wire.py`), so that no kernel
and no network are measured. They take turns in each round. The figures are the medians of the rounds' differences in
processor time, and the calls of functions, which are exact.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c

#: Runs in each process, and with its checkout's own code: reads ``chat N``, ``stream N`` or ``calls N``.
CHILD = """
import asyncio, gc, sys, time
import uvloop
from tests.gateway.wire import data_path

async def main():
    if "without" in sys.argv:
        from xinference.gateway import request_records
        from xinference.gateway.http.request_figures import RequestFigures
        class NoRecorder(request_records.Recorder):
            def begin(self, path, key_id): return RequestFigures()
            def end(self, figures, status): pass
        import xinference.gateway.app as app
        app.Recorder = NoRecorder
    async with data_path() as path:
        async def chats(n):
            for _ in range(n): await path.chat()
        async def counted(work):
            calls = 0
            def note(frame, event, arg):
                nonlocal calls
                calls += event in ("call", "c_call")
            sys.setprofile(note)
            try: await work
            finally: sys.setprofile(None)
            return calls
        await chats(20); await path.stream(50)
        gc.collect(); gc.disable()
        print("ready", flush=True)
        for line in sys.stdin:
            word, number = line.split()
            number = int(number)
            if word == "calls":
                one = await counted(chats(number)) / number
                recorder = getattr(getattr(path, "gateway", None), "recorder", None)
                if recorder is not None: recorder.flush()  # the records of those requests are of no chunk
                chunk = (await counted(path.stream(number + 1)) - await counted(path.stream(1))) / number
                print(one, chunk, flush=True)
                continue
            began = time.thread_time()
            await (chats(number) if word == "chat" else path.stream(number))
            print((time.thread_time() - began) / number * 1e6, flush=True)
            gc.collect()

uvloop.run(main())
"""
REQUESTS, CHUNKS = 200, 2000


@dataclass
class Variant:
    """One process."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, name: str, checkout: Path, python: str, *arguments: str) -> Variant:
        """Start it with the code of a checkout."""
        env = os.environ | {"PYTHONPATH": f"{checkout / 'src'}{os.pathsep}{checkout}"}
        argv = [python, "-c", CHILD, *arguments]
        process = subprocess.Popen(
            argv, cwd=checkout, env=env, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        variant = cls(name, process)
        assert variant.read() == ["ready"]
        return variant

    def read(self) -> list[str]:
        """The words of the next line."""
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).split()

    def ask(self, words: str) -> list[float]:
        """The figures of one measurement."""
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return [float(word) for word in self.read()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="the checkout to compare with")
    parser.add_argument("--before-python", type=Path, help="its interpreter; default: its .venv")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    here = Path(__file__).parents[1]
    variants = [
        Variant.start("now", here, sys.executable),
        Variant.start("now, without records", here, sys.executable, "without"),
    ]
    if arguments.before is not None:
        before = arguments.before.absolute()
        python = arguments.before_python or before / ".venv" / "bin" / "python"
        variants.append(Variant.start("before", before, str(python)))
    try:
        report(variants, arguments.rounds)
    finally:
        for variant in variants:
            variant.process.kill()
            variant.process.wait()


def report(variants: list[Variant], rounds: int) -> None:
    """Measure all variants in turn, and print the figures."""
    figures: dict[str, dict[str, list[float]]] = {each.name: {"chat": [], "stream": []} for each in variants}
    for number in range(rounds):
        order = variants if number % 2 else variants[::-1]
        for word, count in (("chat", REQUESTS), ("stream", CHUNKS)):
            for variant in order:
                figures[variant.name][word] += variant.ask(f"{word} {count}")
    print(f"{'':24}{'us a request':>14}{'us a chunk':>12}{'calls a request':>17}{'calls a chunk':>15}")
    for variant in variants:
        request, chunk = (statistics.median(figures[variant.name][word]) for word in ("chat", "stream"))
        calls = variant.ask("calls 100")
        print(f"{variant.name:24}{request:14.2f}{chunk:12.3f}{calls[0]:17.1f}{calls[1]:15.2f}")
    for other in variants[1:]:
        differences = {
            word: statistics.median(
                now - then for now, then in zip(figures["now"][word], figures[other.name][word], strict=True)
            )
            for word in ("chat", "stream")
        }
        print(
            f"now less {other.name!r}: {differences['chat']:+.2f} us a request, {differences['stream']:+.3f} us a chunk"
        )


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
