"""Speed and memory of the ggmlv3 to GGUF conversion compared with `cp` of the same file, in one run.

    python benchmarks/convert.py [--gigabytes 4] [--rounds 3] [--folder DIR]

A synthetic file is written first. Each round runs `cp`, the conversion as in a launch (an engine may read the file
at once, a thread syncs it to the disk), and both including the sync, in changing order; the medians are
compared. As in a launch, the converting interpreter is already running.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c

N_VOCAB, N_EMBD, N_HEAD, N_FF = 32_000, 4096, 32, 11_008
Q4_0, BLOCK, BLOCK_BYTES = 2, 32, 18
LAYER_SHAPES = {
    "attention.wq": (N_EMBD, N_EMBD),
    "attention.wk": (N_EMBD, N_EMBD),
    "attention.wv": (N_EMBD, N_EMBD),
    "attention.wo": (N_EMBD, N_EMBD),
    "attention_norm": (N_EMBD,),
    "feed_forward.w1": (N_EMBD, N_FF),
    "feed_forward.w2": (N_FF, N_EMBD),
    "feed_forward.w3": (N_EMBD, N_FF),
    "ffn_norm": (N_EMBD,),
}
OUTER_SHAPES = {"tok_embeddings": (N_EMBD, N_VOCAB), "norm": (N_EMBD,), "output": (N_EMBD, N_VOCAB)}
CONVERT = """
import sys, time
from pathlib import Path
from xinference.formats.convert import convert_ggml
from xinference.formats.llama_facts import LlamaFacts
facts = LlamaFacts("synthetic", 4096, 1e-5)
print("loaded", flush=True)
sys.stdin.readline()
convert_ggml(Path(sys.argv[1]), Path(sys.argv[2]), facts, sync="before" if sys.argv[3] == "convert + sync" else "after")
end = time.perf_counter()
status = Path("/proc/self/status").read_text()
print(end, next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def tensor_bytes(shape: tuple[int, ...]) -> int:
    return 4 * shape[0] if len(shape) == 1 else shape[0] * shape[1] // BLOCK * BLOCK_BYTES


def write_synthetic(path: Path, size: int) -> None:
    """A 7B-like q4_0 file of about `size` bytes, by its number of layers."""
    outer, layer = (sum(map(tensor_bytes, shapes.values())) for shapes in (OUTER_SHAPES, LAYER_SHAPES))
    n_layers = max(1, round((size - outer) / layer))
    shapes = dict(OUTER_SHAPES)
    for index in range(n_layers):
        shapes.update({f"layers.{index}.{name}": shape for name, shape in LAYER_SHAPES.items()})
    noise = os.urandom(1 << 20)
    with path.open("wb") as file:
        file.write(b"tjgg" + struct.pack("<8I", 3, N_VOCAB, N_EMBD, 256, N_HEAD, n_layers, N_EMBD // N_HEAD, Q4_0))
        for token in range(N_VOCAB):
            text = b" piece%d" % token
            file.write(struct.pack("<I", len(text)) + text + struct.pack("<f", -token))
        for name, shape in shapes.items():
            raw = f"{name}.weight".encode()
            kind = 0 if len(shape) == 1 else Q4_0
            file.write(struct.pack(f"<{3 + len(shape)}I", len(shape), len(raw), kind, *shape) + raw)
            file.write(bytes(-file.tell() % 32))
            left = tensor_bytes(shape)
            while left:
                left -= file.write(noise[: min(left, len(noise))])
        file.flush()
        os.fsync(file.fileno())


def claim_memory(size: int) -> None:
    """Touch as much memory as the page cache will need: on a virtual machine the host may have to provide it first.

    The first user would pay seconds for it, either `cp` or the conversion.
    """
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def timed(kind: str, source: Path, target: Path) -> tuple[float, int]:
    """Seconds, and for the conversion its peak resident memory in bytes. The target is removed afterwards."""
    os.sync()
    if kind.startswith("convert"):
        command = [sys.executable, "-c", CONVERT, str(source), str(target), kind]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "loaded\n"
            claim_memory(source.stat().st_size + (512 << 20))
            start = time.perf_counter()
            process.stdin.write("go\n")
            process.stdin.flush()
            # The process reports its own end time, because it exits only after its thread has synced the file.
            end, memory = process.stdout.readline().split()
    else:
        claim_memory(source.stat().st_size + (512 << 20))
        start = time.perf_counter()
        subprocess.run(["cp", str(source), str(target)], check=True)
        if kind == "cp + sync":
            subprocess.run(["sync", str(target)], check=True)
        end, memory = str(time.perf_counter()), "0"
    target.unlink()
    return float(end) - start, int(memory) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="folder for the files; default: the temporary folder")
    arguments = parser.parse_args()
    kinds = ["cp", "convert", "cp + sync", "convert + sync"]
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    peak = 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source = Path(folder) / "synthetic.ggmlv3.q4_0.bin"
        write_synthetic(source, int(arguments.gigabytes * 1e9))
        size = source.stat().st_size
        for number in range(arguments.rounds):
            turn = number % len(kinds)
            for kind in kinds[turn:] + kinds[:turn]:
                taken, memory = timed(kind, source, Path(folder) / "copy")
                seconds[kind].append(taken)
                peak = max(peak, memory)
    report(size, seconds, peak)
    return 0


def report(size: int, seconds: dict[str, list[float]], peak: int) -> None:
    print(f"{size / 1e9:.2f} GB, {len(seconds['cp'])} rounds, medians")
    median = {kind: statistics.median(times) for kind, times in seconds.items()}
    for kind, value in median.items():
        low, high = min(seconds[kind]), max(seconds[kind])
        print(f"  {kind:18} {value:7.2f} s {size / value / 1e6:8.0f} MB/s   ({low:.2f}–{high:.2f} s)")
    for ours, theirs in (("convert", "cp"), ("convert + sync", "cp + sync")):
        print(f"  {ours} / {theirs}: {median[theirs] / median[ours]:.2f} x the speed")
    print(f"  peak memory of the converting process: {peak / 1e6:.1f} MB")


if __name__ == "__main__":
    end_as_ctrl_c()
    sys.exit(main())
