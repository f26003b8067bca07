"""A server of OpenAI's protocol, and the requests to it."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

WORDS = ("river", "stone", "lamp", "north", "seven", "quiet", "glass", "orbit", "paper", "winter", "signal", "amber")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Server:
    """A server of OpenAI's protocol."""

    url: str
    key: str = ""
    clock: Callable[[], float] = time.perf_counter

    def post(self, path: str, body: Any) -> Any:
        """The decoded answer."""
        with urllib.request.urlopen(self._request(path, body), timeout=3600) as answer:
            return json.load(answer)

    def first_token(self, body: dict[str, Any]) -> float:
        """Seconds until the first text of a stream, or its end if it has none; it is read to its end.

        Raises:
            RuntimeError: the stream has neither.
        """
        begin = self.clock()
        return self.token_times(body)[0] - begin

    def token_times(self, body: dict[str, Any]) -> list[float]:
        """When each text of a stream came, and its end, by the clock; there is at least one.

        Raises:
            RuntimeError: the stream has neither.
        """
        times, line = [], b""
        with urllib.request.urlopen(
            self._request("/v1/chat/completions", {**body, "stream": True}), timeout=3600
        ) as answer:
            for line in answer:
                if b'"content":"' in line or b'"finish_reason":"' in line:
                    times.append(self.clock())
        if not times:
            raise RuntimeError(f"{self.url} ended its stream without an answer: {line[:300]!r}")
        return times

    def burst(self, bodies: Sequence[dict[str, Any]]) -> list[float]:
        """The seconds until the first token of each of these requests, sent at once."""
        return in_threads(self.first_token, bodies)

    def computed_tokens(self) -> float:
        """Tokens of prompts that the engine has computed, without those that it had."""
        if not self.key:
            with urllib.request.urlopen(f"{self.url}/v1/models/m/engine", timeout=60) as answer:
                (replica,) = json.load(answer)
                return float(replica["prefix_queries"] - replica["prefix_hits"])
        request = urllib.request.Request(f"{self.url}/metrics", headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[:1] != "#")
            return float(found["llamacpp:prompt_tokens_total"])

    def _request(self, path: str, body: Any) -> urllib.request.Request:
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        return urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)


def in_threads(work: Callable[..., Result], *arguments: Sequence[Any]) -> list[Result]:
    """All results of calls at the same time. An interrupt waits for none of them."""
    pool = ThreadPoolExecutor(len(arguments[0]))
    try:
        return list(pool.map(work, *arguments))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def text(seed: object, words: int) -> str:
    """Random words, the same for the same seed."""
    return " ".join(random.Random(str(seed)).choices(WORDS, k=words))


def chat(system: str, question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return {"model": "m", "messages": messages, "max_tokens": 4, "temperature": 0, **fields}
