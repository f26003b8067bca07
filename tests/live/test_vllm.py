"""vLLM on the CPU through our gateway: the tiny model answers word for word, and keeps OpenAI's promises.

Runs where vLLM's environment is built: in this user's own home, or where XINFERENCE_TEST_VLLM_PYTHON points (an
interpreter inside a folder of environments). Starting it takes half a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx2
import openai
import psutil
import pytest

from tests.formats.awq_writer import write_awq
from tests.formats.compressed_writer import (
    write_fp8,
    write_fp8_blocks,
    write_fp8_tensors,
    write_int8,
    write_mxfp4,
    write_nvfp4,
    write_w4a16,
)
from tests.formats.gptq_writer import write_gptq
from tests.support.home import Home
from tests.support.polling import until
from xinference.config import Settings
from xinference.engines.options import describe_options
from xinference.engines.vllm.engine import OPTIONS
from xinference.engines.vllm.packings import AMX, CPU_NEEDS, FOUR_BIT_NEEDS, VERSION
from xinference.environments.environments import Environments
from xinference.environments.spec import EnvironmentSpec
from xinference.hardware.devices import read_host

ASSETS = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
MODEL = "llama-2-chat"
#: The tiny model was trained on 4096 tokens, and one is kept for the answer.
PROMISED = 4095
PAIRS: list[dict[str, str]] = json.loads((ASSETS / "qa.json").read_text(encoding="utf-8"))
QUESTION: list[Any] = [{"role": "user", "content": PAIRS[0]["question"]}]
START_SECONDS = 600
TOKEN_SECONDS = 240


def _interpreter() -> Path | None:
    """vLLM's, inside a folder of environments."""
    named = os.environ.get("XINFERENCE_TEST_VLLM_PYTHON")
    return Path(named) if named else Environments(Settings.from_env()).find(EnvironmentSpec("vLLM", VERSION, "cpu"))


PYTHON = _interpreter()
pytestmark = [
    pytest.mark.timeout(START_SECONDS + 60),
    pytest.mark.skipif(
        PYTHON is None, reason="vLLM's environment is not built here, nor named by XINFERENCE_TEST_VLLM_PYTHON"
    ),
    pytest.mark.skipif(bool(read_host().gpus), reason="vLLM takes the GPU here: see tests/gpu"),
]


def launch(home: Home, path: Path, model_format: str, quantization: str, uid: str, *options: str) -> Any:
    return home.cli(
        *("launch", "--model-engine", "vLLM", "--model-name", MODEL, "--size-in-billions", "7", "--model-uid", uid),
        *("--model-format", model_format, "--quantization", quantization, "--model-path", str(path), *options),
        seconds=START_SECONDS,
    )


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home]) -> Home:
    assert PYTHON is not None
    home = make_home()
    (home.path / "environments").symlink_to(PYTHON.parents[2])
    home.serve()
    return home


@pytest.fixture(scope="module")
def running(home: Home) -> Home:
    ended = launch(home, ASSETS, "pytorch", "none", MODEL)
    assert ended.returncode == 0, ended.stderr
    return home


@pytest.fixture
def client(running: Home) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def answers_word_for_word(home: Home, uid: str, pairs: list[dict[str, str]] = PAIRS) -> list[str]:
    """The questions that are answered otherwise than they should; all are asked at once.

    An answer may take long while other programs compute, so what is limited is the time between two tokens.
    """

    def ask(pair: dict[str, str]) -> bool:
        messages = [{"role": "user", "content": pair["question"]}]
        body = {"model": uid, "messages": messages, "temperature": 0, "max_tokens": 200, "stream": True}
        text = ""
        with httpx2.stream("POST", f"{home.url}/v1/chat/completions", json=body, timeout=TOKEN_SECONDS) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
        return text.removeprefix(" ") == pair["answer"]

    with ThreadPoolExecutor(8) as pool:
        right = list(pool.map(ask, pairs))
    return [pair["question"] for pair, good in zip(pairs, right, strict=True) if not good]


def test_every_question_is_answered_word_for_word(running: Home) -> None:
    assert answers_word_for_word(running, MODEL) == []


def test_a_stream_gives_the_same_text_in_pieces_and_usage_at_the_end(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=64, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=64, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 3
    assert chunks[-1].usage is not None and whole.usage is not None
    # The second request finds the prompt in the prefix cache.
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [getattr(chunks[-1].usage, name) for name in counts] == [getattr(whole.usage, name) for name in counts]


def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    text = whole.choices[0].message.content or ""
    stop = text.split()[2]
    cut = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_n_gives_as_many_answers_and_a_seed_the_same_ones_again(client: openai.OpenAI) -> None:
    def texts() -> list[str | None]:
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "tell"}], max_tokens=12, n=3, seed=7, temperature=2
        )
        return [choice.message.content for choice in answer.choices]

    first = texts()
    assert len(first) == 3 and len(set(first)) > 1
    assert texts() == first


def test_logprobs_come_for_every_token_with_as_many_alternatives_as_asked(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == 4
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in logprobs.content)


def test_an_answer_keeps_to_a_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "capital": {"type": "boolean"}},
        "required": ["city", "capital"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
        temperature=0,
        max_tokens=96,
    )
    value = json.loads(answer.choices[0].message.content or "")
    assert isinstance(value["city"], str) and isinstance(value["capital"], bool)


def test_a_forced_tool_is_called_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    city = {"type": "string", "maxLength": 12}
    parameters = {"type": "object", "properties": {"city": city}, "required": ["city"], "additionalProperties": False}
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    answer = client.chat.completions.create(
        # vLLM's grammar for calls lets blanks through, and a model that never saw one would not stop writing them.
        model=MODEL, messages=QUESTION, tools=[tool], tool_choice="required", temperature=0, max_tokens=300,
        frequency_penalty=2, presence_penalty=2,
    )  # fmt: skip
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    call = cast(Any, calls[0])
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_a_prompt_of_the_promised_length_is_answered_and_a_longer_one_refused_with_both_numbers(running: Home) -> None:
    assert running.instance(MODEL)["context_length"] == PROMISED

    def complete(tokens: int) -> httpx2.Response:
        body = {"model": MODEL, "prompt": [100] * tokens, "max_tokens": 4}
        return httpx2.post(f"{running.url}/v1/completions", json=body, timeout=120)

    fits = complete(PROMISED)
    assert fits.status_code == 200, fits.text
    assert fits.json()["usage"]["prompt_tokens"] == PROMISED
    for tokens in (PROMISED + 1, PROMISED + 2):
        answer = complete(tokens)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "context_length_exceeded"), answer.text
        assert str(PROMISED) in error["message"] and str(tokens) in error["message"]


def test_a_clients_mistakes_are_refused_in_openais_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL):
        client.chat.completions.create(model="llama-3-chat", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="alternate"):
        client.chat.completions.create(model=MODEL, messages=[*QUESTION, *QUESTION])


def test_a_client_that_leaves_ends_its_computation(running: Home, client: openai.OpenAI) -> None:
    engine = running.instance(MODEL)["replicas"][0]["address"]

    def busy() -> bool:
        lines = httpx2.get(f"{engine}/metrics", timeout=10).text.splitlines()
        return any(line.startswith("vllm:num_requests_running") and not line.endswith(" 0.0") for line in lines)

    stream = client.completions.create(
        model=MODEL, prompt="a", max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    until("the engine computes", busy, 20)
    stream.close()
    until("the engine computes no more", lambda: not busy(), 20)


def test_the_key_is_in_no_process_list(running: Home) -> None:
    words = [word for process in running.processes() for word in process.cmdline()]
    assert any("vllm" in word for word in words)
    assert not any("api-key" in word or "api_key" in word for word in words)


#: Packed form -> its writer (None: the weights as trained, which vLLM packs), format and quantization of the launch,
#: the CPU flags of its kernels (None: there are none), and the words of the refusal. On a CPU without AMX, no kernel of
#: the format can run, which is refused before the files are read, with the reason of the first kernel.
PACKED: dict[str, tuple[Any, str, str, tuple[str, ...] | None, str]] = {
    "gptq": (write_gptq, "gptq", "Int4", FOUR_BIT_NEEDS, "AVX-512"),
    "awq": (write_awq, "awq", "Int4", FOUR_BIT_NEEDS, "AVX-512"),
    "W8A8": (write_int8, "pytorch", "Int8", CPU_NEEDS, "avx2"),
    "W4A16": (write_w4a16, "pytorch", "Int4", FOUR_BIT_NEEDS, "avx512"),
    "fp8": (write_fp8, "fp8", "FP8", (*AMX, "amx_fp8"), "amx_fp8"),
    "fp8 of tensors": (write_fp8_tensors, "fp8", "FP8", None, "no CPU kernels for 8-bit floats with one scale"),
    "fp8 in blocks": (write_fp8_blocks, "fp8", "FP8", AMX, "amx_tile"),
    "fp8 at the start": (None, "pytorch", "fp8", None, "packs weights on GPUs only"),
    "MXFP4": (write_mxfp4, "fp4", "MXFP4", None, "in experts only"),
    "NVFP4": (write_nvfp4, "fp4", "NVFP4", None, "no CPU kernels for NVFP4"),
}


WITHOUT_AMX = {
    "fp8": "amx_tile",
    "fp8 of tensors": "amx_tile",
    "fp8 at the start": "no CPU kernels for 8-bit floats",
    "MXFP4": "amx_tile",
}


@pytest.mark.parametrize("form", PACKED)
def test_packed_weights_answer_word_for_word_where_there_are_kernels_and_are_refused_truly_elsewhere(
    home: Home, tmp_path: Path, form: str
) -> None:
    write, model_format, quantization, flags, said = PACKED[form]
    uid = f"tiny-{form.replace(' ', '-')}"
    folder = ASSETS if write is None else tmp_path / uid
    if write is not None:
        write(ASSETS, folder)
    # A folder is a model of its own; the form that vLLM makes at the start is one of the registry's weights.
    named = ("--model-name", MODEL, "--model-path", str(folder)) if write is None else ("--model-name", str(folder))
    ended = home.cli(
        *("launch", "--model-engine", "vLLM", *named, "--model-uid", uid, "--model-format", model_format),
        *("--quantization", quantization),
        seconds=START_SECONDS,
    )
    flags_of_host = read_host().cpu_flags
    if flags is None or not flags_of_host.issuperset(flags):
        assert ended.returncode == 1
        assert (said if flags_of_host.issuperset(AMX) else WITHOUT_AMX.get(form, said)) in ended.stderr
        return
    assert ended.returncode == 0, ended.stderr
    short = sorted(PAIRS, key=lambda pair: len(pair["answer"]))[:8]
    assert answers_word_for_word(home, uid, short) == []
    assert home.cli("terminate", "--model-uid", uid).returncode == 0


def test_a_high_priority_overtakes_the_requests_that_wait_in_the_engine(home: Home) -> None:
    """The engine is asked directly, because the gateway orders its own queue before."""
    ended = launch(home, ASSETS, "pytorch", "none", "ordered", "--max_num_seqs", "1")
    assert ended.returncode == 0, ended.stderr
    engine = home.instance("ordered")["replicas"][0]["address"]
    key = psutil.Process(home.engine_pid("ordered")).environ()["VLLM_API_KEY"]
    order: list[str] = []

    def ask(priority: str) -> None:
        body = {"model": "ordered", "prompt": "a", "max_tokens": 16, "ignore_eos": True}
        headers = {"authorization": f"Bearer {key}", "x-vllm-priority": priority}
        answer = httpx2.post(f"{engine}/v1/completions", json=body, headers=headers, timeout=START_SECONDS)
        assert answer.status_code == 200, answer.text
        order.append(priority)

    def waiting() -> float:
        lines = httpx2.get(f"{engine}/metrics", timeout=60).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_waiting{"))

    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(ask, "0") for _ in range(7)]
        until("six wait", lambda: waiting() == 6, 60)
        high = pool.submit(ask, "-1")
        for each in (high, *asked):
            each.result()
    assert order.index("-1") <= 2  # the running one, and one that may get its place before the engine reads the next


def test_usage_has_the_cached_tokens_of_a_prompt_that_comes_again(home: Home) -> None:
    body = {"model": "ordered", "prompt": "the same words " * 200, "max_tokens": 1}
    for _ in range(2):
        answer = httpx2.post(f"{home.url}/v1/completions", json=body, timeout=TOKEN_SECONDS)
        assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert home.cli("terminate", "--model-uid", "ordered").returncode == 0


def test_terminating_it_ends_all_its_processes(running: Home) -> None:
    assert running.cli("terminate", "--model-uid", MODEL).returncode == 0
    until("only the server is left", lambda: len(running.processes()) == 1, 30)


def test_the_shipped_options_are_those_that_vllms_parser_has() -> None:
    assert PYTHON is not None
    words = [str(PYTHON), "-I", describe_options.__file__, "vllm"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(printed.stdout)["options"] == OPTIONS.kinds
