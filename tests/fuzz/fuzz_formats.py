"""Mutates small valid ggmlv3 and GGUF files and checks what the readers make of them.

    python tests/fuzz/fuzz_formats.py [--seconds N] [--cases M] [--seed S]

Every case must end as a header or as a `Problem` ``bad_weight_file``, soon and in little memory, and a ggmlv3 file
that is accepted must convert to a GGUF file that is accepted. Anything else is printed with the seed that makes it
again, and ends the run with exit status 1. The files lie in /dev/shm if there is one.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # `tests` is no installed package
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.formats.ggml_writer import minimal_ggml
from tests.formats.gguf_writer import FLOAT32, INT32, STRING, UINT32, Gguf, array, scalar
from xinference.errors import Problem
from xinference.formats.convert import convert_ggml
from xinference.formats.ggml import read_ggml
from xinference.formats.gguf import read_header
from xinference.formats.llama_facts import LlamaFacts

#: Processor seconds that one case may take; it takes about a millisecond.
MAX_SECONDS = 1.0
#: Seconds by the clock after which a case is stopped.
HANG_SECONDS = 10.0
#: Memory that all cases together may take beyond what the first ones took, in bytes.
MAX_GROWTH = 16 << 20
EXTREMES = (
    0,
    1,
    2,
    3,
    31,
    32,
    255,
    256,
    1024,
    0xFFFF,
    1 << 17,
    1 << 20,
    1 << 24,
    1 << 31,
    (1 << 31) - 1,
    (1 << 32) - 1,
)
EXTREMES_64 = (*EXTREMES, 1 << 32, 1 << 44, (1 << 44) + 1, 1 << 62, 1 << 63, (1 << 63) - 1, (1 << 64) - 1)

FACTS = LlamaFacts("fuzz", 4096, 1e-5, bos_token_id=0, eos_token_id=0)

Reader = Callable[[Path], object]


@dataclass
class Result:
    """What came of a run."""

    cases: Counter[str] = field(default_factory=Counter)
    """``ggml accepted``, ``gguf refused`` … -> cases."""
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    """Processor seconds of the slowest case."""
    paused: int = 0
    """Cases that were stopped once and then ended well: the machine stood still, not the reader."""
    growth: int = 0
    """Bytes that the peak resident memory grew after the first cases."""


class Hang(BaseException):
    """A case took too long; no handler inside the readers may take it for something else."""


def read_and_convert(path: Path) -> None:
    """Read a ggmlv3 file; what is accepted must also convert."""
    read_ggml(path)
    target = path.with_suffix(".gguf")
    try:
        read_header(convert_ggml(path, target, FACTS, sync="never"))
    except Problem as problem:
        raise ValueError(f"accepted, but then: {problem}") from problem


def seeds() -> list[tuple[str, Reader, bytes]]:
    """Small valid files, each with its reader."""
    more = Gguf()
    more.pairs["llama.attention.head_count_kv"] = array(INT32, [2, 4])
    more.pairs["general.alignment"] = scalar(UINT32, 64)
    more.pairs["tokenizer.ggml.tokens"] = array(STRING, [f"piece{i}" for i in range(200)])
    more.pairs["tokenizer.ggml.scores"] = array(FLOAT32, [-float(i) for i in range(200)])
    more.alignment = 64
    ggml: list[tuple[str, Reader, bytes]] = [
        ("ggml", read_and_convert, minimal_ggml()),
        ("ggml", read_and_convert, minimal_ggml(heads=8, kv_heads=2, vocab=7)),
    ]
    return [*ggml, ("gguf", read_header, Gguf().to_bytes()), ("gguf", read_header, more.to_bytes())]


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One to four changes: bits, bytes, length fields, cuts, pieces moved or taken from another file."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        if not changed:
            break
        # Most of what can go wrong stands at the start.
        limit = len(changed) if chance.random() < 0.7 else min(len(changed), 128)
        position = chance.randrange(limit)
        match chance.randrange(8):
            case 0 | 1:
                changed[position] ^= 1 << chance.randrange(8)
            case 2:
                changed[position] = chance.randrange(256)
            case 3:
                _put(changed, position & ~3, struct.pack("<I", chance.choice(EXTREMES)))
            case 4:
                _put(changed, position, struct.pack("<Q", chance.choice(EXTREMES_64)))
            case 5:
                del changed[position:]
            case 6:
                del changed[position : position + chance.randint(1, 64)]
            case 7:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                changed[position:position] = other[start : start + chance.randint(1, 64)]
    return bytes(changed)


def _put(data: bytearray, position: int, value: bytes) -> None:
    end = min(len(data), position + len(value))
    data[position:end] = value[: end - position]


def run(folder: Path, cases: int, seconds: float, seed: int) -> Result:
    """Try `cases` mutations, or as many as `seconds` allow."""
    result, files = Result(), seeds()
    others = [data for _, _, data in files]
    path = folder / "case.bin"
    end = time.monotonic() + seconds
    first_peak = 0
    signal.signal(signal.SIGALRM, _hang)
    for number in range(cases):
        if number == 1000:
            first_peak = _peak()
        if time.monotonic() > end:
            break
        chance = random.Random(f"{seed}:{number}")
        name, reader, data = files[number % len(files)]
        path.write_bytes(mutate(data, others, chance))
        outcome, taken = _outcome(reader, path)
        if outcome == "hung":
            outcome, taken = _outcome(reader, path)
            result.paused += outcome != "hung"
        result.cases[f"{name} {outcome}"] += 1
        result.slowest = max(result.slowest, taken)
        if outcome not in ("accepted", "refused") or taken > MAX_SECONDS:
            result.failures.append(f"--seed {seed}, case {number}: {name} {outcome}, {taken:.3f} s")
    result.growth = max(0, _peak() - first_peak) if first_peak else 0
    if result.growth > MAX_GROWTH:
        result.failures.append(f"the peak memory grew by {result.growth} bytes")
    return result


def _outcome(reader: Reader, path: Path) -> tuple[str, float]:
    """What came of one case, and its processor seconds."""
    start = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    try:
        outcome = _verdict(reader, path)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Hang:
        outcome = "hung"
    return outcome, time.process_time() - start


def _verdict(reader: Reader, path: Path) -> str:
    try:
        reader(path)
    except Problem as problem:
        good = (problem.code, problem.status) == ("bad_weight_file", 400) and str(path) in problem.cause
        return "refused" if good and problem.hint else f"refused without saying why: {problem}"
    except Exception as error:  # noqa: BLE001 -- the fuzzer looks for all other exceptions
        return f"raised {error!r}"
    return "accepted"


def _hang(*_: object) -> None:
    raise Hang


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shared_memory = Path("/dev/shm")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        result = run(Path(folder), arguments.cases, arguments.seconds, arguments.seed)
    total = sum(result.cases.values())
    print(f"{total} cases in {time.monotonic() - start:.0f} s, seed {arguments.seed}")
    for name, count in sorted(result.cases.items()):
        print(f"  {name}: {count}")
    print(f"  slowest case {result.slowest * 1000:.1f} ms of processor time")
    print(f"  peak memory grew by {result.growth / 1e6:.1f} MB")
    print(f"  stopped once because the machine paused: {result.paused}")
    for failure in result.failures[:20]:
        print(f"FAILED {failure}")
    print(f"{len(result.failures)} failures")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
