"""Part 4: prompts that have nothing in common."""

from __future__ import annotations

import statistics

from benchmarks.shared_beginnings.client import Server, chat, text


def apart(own: Server, other: Server, name: str, count: int, words: int = 60) -> None:
    """Part 4: prompts that have nothing in common; the time of each whole request."""
    ratios = []
    for n in range(count):
        seconds = {}
        for server in (own, other) if n % 2 else (other, own):
            begin = server.clock()
            server.post(
                "/v1/chat/completions", chat(text(("apart", n), words), f"{n}?", max_tokens=16, ignore_eos=True)
            )
            seconds[server.url] = server.clock() - begin
        if n:  # the first one is slower on both
            ratios.append(seconds[own.url] / seconds[other.url])
    error = 1.96 * statistics.stdev(ratios) / len(ratios) ** 0.5
    print(
        f"nothing shared: shared / {name} {statistics.median(ratios):.3f} "
        f"(median of {len(ratios)}; mean {statistics.mean(ratios):.3f} +- {error:.3f})",
        flush=True,
    )
