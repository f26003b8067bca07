"""Runs engines for `xinference tune`, and compares the speeds of two of them in turns: both have the same load then."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import shake_128

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.local_commands.speed_comparison import Comparison, Ratios
from xinference.process.command import EngineCommand

#: Maximum seconds of an engine's start and of an answer.
START_SECONDS, ANSWER_SECONDS = 600.0, 600.0
#: Words of the prompt of the figure `prefill`, and tokens of each answer.
PROMPT_WORDS, ANSWER_TOKENS, EDIT_TOKENS = 128, 12, 24
#: Words of the longest prompt of which the answers are compared: more tokens than a small batch.
LONG_WORDS = 300
#: The most tokens that a word may have in the vocabulary of a small model, and some for the answer.
WORD_TOKENS = 6
STREAMS = (1, 4, 8)
#: A mean of all figures below which no further round is worth its time.
HOPELESS = 0.9
_WORDS = ("river", "stone", "lamp", "north", "seven", "quiet", "glass", "orbit", "paper", "winter", "signal", "amber")


class TimeUpError(Exception):
    """The time for all measurements is over."""


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    port: int
    key: str
    context: int
    """Tokens of a prompt and its answer."""
    ends: float = math.inf
    """The time of `time.monotonic` after which nothing more is asked."""

    def words(self, wanted: int) -> int:
        """The number of words of a prompt that fits into the context."""
        return max(1, min(wanted, self.context // WORD_TOKENS))

    def complete(self, prompt: str, tokens: int) -> tuple[str, int]:
        """The likeliest text after a prompt, and its number of tokens.

        Raises:
            OSError: there is no answer.
            TimeUpError: the time is over.
        """
        seconds = min(ANSWER_SECONDS, self.ends - time.monotonic())
        if seconds <= 0:
            raise TimeUpError
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        with contextlib.closing(connection):
            try:
                connection.request("POST", "/completion", json.dumps(body), headers)
                answer = connection.getresponse()
                document = json.loads(answer.read())
            except TimeoutError:
                if time.monotonic() >= self.ends:
                    raise TimeUpError from None
                raise
            except (http.client.HTTPException, ValueError) as error:
                raise OSError(f"the engine gave no answer: {error!r}") from error
        if answer.status != 200:
            raise OSError(f"the engine answered {answer.status}")
        return document["content"], document["tokens_predicted"]


@contextmanager
def running(command: EngineCommand, context: int, ends: float = math.inf) -> Iterator[Engine]:
    """Start an engine, and stop it at the end.

    Args:
        context: tokens of a prompt and its answer.
        ends: see `Engine.ends`.

    Raises:
        Problem: 500 ``launch_failed``, with the end of its output.
    """
    with socket.socket() as free, tempfile.TemporaryFile() as output:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        argv = [word.replace("{port}", str(port)) for word in command.argv]
        env = os.environ | {name: value.replace("{port}", str(port)) for name, value in command.env.items()}
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            if not _is_ready(process, port):
                output.seek(max(0, output.seek(0, os.SEEK_END) - 2000))
                tail = output.read().decode(errors="replace").strip().splitlines()[-1:]
                raise Problem(Code.LAUNCH_FAILED, f"The engine did not start: {' '.join(tail) or 'no output'}.")
            yield Engine(port, command.api_key, context, ends)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def compare(first: Engine, second: Engine, rounds: int, until: float) -> Comparison:
    """The speeds of the second engine in relation to the first one.

    Args:
        until: the time of `time.monotonic` after which no further round begins.

    Raises:
        TimeUpError: the time is over before one round.
    """
    for engine in (first, second):
        engine.complete(_text("warm", 16), 1)
    measured: list[Ratios] = []
    for number in range(rounds):
        try:
            measured.append(_round(first, second, number))
        except TimeUpError:
            if measured:
                break
            raise
        if time.monotonic() > until or Comparison(measured).mean < HOPELESS:
            break
    return Comparison(measured)


def _round(first: Engine, second: Engine, number: int) -> Ratios:
    """The ratios of one round; the engines take turns to be the first one."""
    ratios = {}
    for name, measure in _figures(number).items():
        order = (first, second) if number % 2 else (second, first)
        speeds = {id(engine): measure(engine) for engine in order}
        ratios[name] = speeds[id(second)] / speeds[id(first)]
    return ratios


def answers(engine: Engine) -> list[str]:
    """The likeliest answers to some prompts; one is longer than a batch."""
    prompts = ("Once upon a time", _text("answers", engine.words(LONG_WORDS)), _edit(engine, "answers"))
    return [engine.complete(prompt, EDIT_TOKENS)[0] for prompt in prompts]


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the engine answers; False: it has ended, or takes too long."""
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        time.sleep(0.05)
    return False


def _figures(number: int) -> Mapping[str, Callable[[Engine], float]]:
    """The figures of one round: what each measures, in tokens per second."""
    streams = {f"{n} stream{'s' if n > 1 else ''}": partial(_streams, number=number, count=n) for n in STREAMS}
    return {"prefill": partial(_prefill, number=number), **streams, "edits": partial(_edits, number=number)}


def _prefill(engine: Engine, number: int) -> float:
    words = engine.words(PROMPT_WORDS)
    begin = time.perf_counter()
    engine.complete(_text(number, words), 1)
    return words / (time.perf_counter() - begin)


def _streams(engine: Engine, number: int, count: int) -> float:
    prompts = [_text((number, count, each), 8) for each in range(count)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        tokens = sum(made for _, made in pool.map(lambda prompt: engine.complete(prompt, ANSWER_TOKENS), prompts))
    return tokens / (time.perf_counter() - begin)


def _edits(engine: Engine, number: int) -> float:
    begin = time.perf_counter()
    _, tokens = engine.complete(_edit(engine, number), EDIT_TOKENS)
    return tokens / (time.perf_counter() - begin)


def _text(seed: object, words: int) -> str:
    """Words that are the same for the same seed."""
    return " ".join(_WORDS[each % len(_WORDS)] for each in shake_128(repr(seed).encode()).digest(words))


def _edit(engine: Engine, seed: object) -> str:
    """A prompt whose answer repeats a part of it."""
    text = _text(("edit", seed), engine.words(96) // 3)
    return f"{text}.\n{text}.\n{' '.join(text.split()[:8])}"
