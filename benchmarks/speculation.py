"""Speculative decoding: tokens a second, and the share of accepted tokens; on llama.cpp through the whole server.

    python -m benchmarks.speculation --model SmolLM2-135M-Instruct.Q4_1.gguf [--draft SMALLER.gguf] [--rounds 3]
        [--methods n-gram-simple,n-gram-mod] [--clock engine]
    python -m benchmarks.speculation --engine transformers --python ENV/bin/python --model FOLDER [--at-once 1,4,8]
        [--methods "prompt lookup"] [--prompts edit,story]

Launches of the same weights answer the same prompts in turn: without speculation, once more without it, with each
method of n-grams of the prompt and the answer, and with a draft model. The second one shows what equal engines differ
by. All answers are the likeliest ones, so their text must be the same.
On a machine with other work, `--clock engine` counts the seconds that the engine has computed, on one thread; those of
the prompt, which is in the slot already, are not among them.

Without `--draft`, the draft model is the model itself: nearly every token is accepted, and none is faster. That shows
what drafting costs; a gain needs a draft model that is several times smaller than the model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

from benchmarks.shared_beginnings.client import Server
from benchmarks.shared_beginnings.client import text as random_words
from benchmarks.shared_beginnings.servers import engine_clock, engine_pid
from benchmarks.startup import call, wait_for
from benchmarks.transformers_speculation import METHODS as TRANSFORMERS_METHODS
from benchmarks.transformers_speculation import Run
from benchmarks.transformers_speculation import measure as measure_transformers

WITHOUT = "without"
#: Maximum seconds of a launch and of an answer.
ANSWER_SECONDS = 900
_CODE = """def sum_of_squares(numbers):
    result = 0
    for number in numbers:
        if number > 0:
            result = result + number * number
    return result
"""
_LLAMAS = (
    "The llama is a domesticated South American camelid, widely used as a meat and pack animal by Andean cultures. "
    "Llamas are social animals and live with others as a herd. Their wool is soft and contains only a small amount of "
    "lanolin. Llamas can learn simple tasks after a few repetitions."
)
#: Texts that repeat themselves, as code and extracts do, and texts that do not.
PROMPTS = {
    "repeated": "The colours are red, green, blue, yellow, purple and orange.\n" * 4,
    "edit": f"The code:\n{_CODE}\nThe same code, with total in place of result:\ndef sum_of_squares(numbers):\n",
    "quote": f"Text: {_LLAMAS}\n\nThe text above, copied word for word: The llama is a",
    # The model need not continue such lines exactly: drafts from them may be wrong.
    "numbered line": f"10. {random_words(('rep', 10), 18)}.\n" * 3,
    "story": "Once upon a time, in a village by the sea,",
    "letter": "Dear Sir or Madam, I am writing to you because the lamp that I bought last week",
    "history": "The main causes of the French Revolution of 1789 were the debts of the crown, and",
}
NGRAMS = ("simple", "map-k", "map-k4v", "mod", "cache")


@dataclass(frozen=True)
class Answer:
    """One answer, with the engine's own figures."""

    text: str
    tokens_a_second: float
    drafted: int = 0
    accepted: int = 0

    @staticmethod
    def of(document: Mapping[str, Any]) -> Answer:
        """From the answer's `timings`; llama.cpp leaves out the counts of drafts where there were none."""
        timings = document["timings"]
        return Answer(
            document["choices"][0]["text"],
            timings["predicted_per_second"],
            timings.get("draft_n", 0),
            timings.get("draft_n_accepted", 0),
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("llama.cpp", "transformers"), default="llama.cpp")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file, or for transformers a folder")
    parser.add_argument("--python", type=Path, help="transformers: the interpreter of its environment")
    parser.add_argument("--at-once", default="1,4,8", help="transformers: numbers of answers at once")
    parser.add_argument("--prompts", default=",".join(PROMPTS), help="those to measure, with commas")
    parser.add_argument("--draft", type=Path, help="a smaller GGUF file with the same vocabulary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--methods", help="those to measure, with commas; default: all")
    parser.add_argument("--clock", choices=("wall", "engine"), default="wall")
    arguments = parser.parse_args()
    model = arguments.model.absolute()
    if arguments.engine == "transformers":
        on_transformers(arguments, model)
        return
    draft = (arguments.draft or model).absolute()
    methods: dict[str, dict[str, Any]] = {
        WITHOUT: {},
        "without again": {},
        **{f"n-gram-{name}": {"speculative.types": f"ngram-{name}"} for name in NGRAMS},
        "draft model": {"speculative.types": "draft-simple", "draft_model_path": str(draft)},
    }
    if arguments.methods:
        methods = {name: methods[name] for name in (WITHOUT, *arguments.methods.split(","))}
    by_engine = arguments.clock == "engine"
    print(table(measure(model, methods, arguments.rounds, arguments.tokens, by_engine=by_engine)))


def on_transformers(arguments: argparse.Namespace, model: Path) -> None:
    """Print the tables by CPU time and by wall time."""
    methods = [WITHOUT, *(arguments.methods.split(",") if arguments.methods else list(TRANSFORMERS_METHODS)[1:])]
    prompts = {name: PROMPTS[name] for name in arguments.prompts.split(",")}
    at_once = [int(number) for number in arguments.at_once.split(",")]
    found = measure_transformers(arguments.python, model, prompts, at_once, arguments.rounds, arguments.tokens, methods)

    def answers(runs: Sequence[Run], *, by_cpu: bool) -> list[Answer]:
        return [
            Answer(run.text, run.tokens / (run.cpu if by_cpu else run.wall), run.drafted, run.accepted) for run in runs
        ]

    for by_cpu in (True, False):
        print("\nBy CPU time:\n" if by_cpu else "\nBy wall time:\n")
        print(table({key: answers(runs, by_cpu=by_cpu) for key, runs in found.items()}))


def measure(
    model: Path, methods: Mapping[str, Mapping[str, Any]], rounds: int, tokens: int, *, by_engine: bool = False
) -> dict[tuple[str, str], list[Answer]]:
    """Prompt and method -> its answers; the methods alternate in each round."""
    home = Path(tempfile.mkdtemp(prefix="speculation-"))
    env = os.environ | {"XINFERENCE_HOME": str(home), "XINFERENCE_PORT": str(free_port()), "XINFERENCE_OFFLINE": "1"}
    url = f"http://127.0.0.1:{env['XINFERENCE_PORT']}"
    server = subprocess.Popen([sys.executable, "-m", "xinference.server"], env=env, stderr=subprocess.DEVNULL)
    found: dict[tuple[str, str], list[Answer]] = {}
    try:
        wait_for(f"{url}/health")
        for number, options in enumerate(methods.values()):
            body = {"model_name": str(model), "model_uid": f"m{number}", "n_ctx": 1024, "n_parallel": 1}
            if by_engine:
                body |= {"n_threads": 1, "n_threads_batch": 1}
            call(f"{url}/v1/models", "POST", {**body, **options}, ANSWER_SECONDS)
        for round_ in range(rounds):
            for prompt, text in PROMPTS.items():
                # Another one in each round: some methods remember earlier answers.
                text = f"No. {round_}.\n{text}"
                for number, method in enumerate(methods):
                    body = {"model": f"m{number}", "prompt": text, "max_tokens": tokens, "temperature": 0}
                    answer = _answer(url, body, by_engine=by_engine)
                    found.setdefault((prompt, method), []).append(answer)
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(home)
    return found


def _answer(url: str, body: dict[str, Any], *, by_engine: bool) -> Answer:
    """One answer; by the engine's clock, its prompt is computed before."""
    if not by_engine:
        return Answer.of(json.loads(call(f"{url}/v1/completions", "POST", body, ANSWER_SECONDS)))
    call(f"{url}/v1/completions", "POST", {**body, "max_tokens": 1}, ANSWER_SECONDS)
    clock = engine_clock(engine_pid(Server(url), body["model"]))
    begin = clock()
    document = json.loads(call(f"{url}/v1/completions", "POST", body, ANSWER_SECONDS))
    seconds = clock() - begin
    return replace(Answer.of(document), tokens_a_second=document["usage"]["completion_tokens"] / seconds)


def table(found: Mapping[tuple[str, str], Sequence[Answer]]) -> str:
    """A table of Markdown: the ratio is the median of the rounds' ratios to the answer without speculation."""
    lines = [
        "| text | method | tokens/s | to without | accepted | same text |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (prompt, method), answers in found.items():
        plain = found[prompt, WITHOUT]
        ratio = statistics.median(a.tokens_a_second / b.tokens_a_second for a, b in zip(answers, plain, strict=True))
        speed = statistics.median(each.tokens_a_second for each in answers)
        drafted, accepted = sum(each.drafted for each in answers), sum(each.accepted for each in answers)
        share = f"{accepted} of {drafted} ({accepted / drafted:.0%})" if drafted else "-"
        same = "yes" if [each.text for each in answers] == [each.text for each in plain] else "NO"
        lines.append(f"| {prompt} | {method} | {speed:.2f} | {ratio:.2f} | {share} | {same} |")
    return "\n".join(lines)


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
