"""One suite for every engine: the same client, the same model, the same promises, through the same gateway.

llama.cpp always runs. Transformers and vLLM run where their environments are built: in this user's own home, or in
the folder that XINFERENCE_TEST_ENVIRONMENTS names. Where engines differ, docs/engines.md says so and why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
import sentencepiece

from tests.formats.gguf_model import write_gguf
from tests.support.built_environments import require_environment
from tests.support.home import Home, sse_events
from tests.support.polling import until

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
PAIRS: list[dict[str, str]] = json.loads((HF / "qa.json").read_text(encoding="utf-8"))[::4]
UID = "tiny"
ASKED = 400
START_SECONDS = 600
FORMATS = {"llama.cpp": ("ggufv2", "Q8_0"), "Transformers": ("pytorch", "none"), "vLLM": ("pytorch", "none")}
CONTEXT_OPTION = {"llama.cpp": "--n_ctx", "Transformers": "--context_length", "vLLM": "--max_model_len"}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["llama", "alpaca"]}, "legs": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "legs"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "describe", "description": "An animal", "parameters": SCHEMA}}

pytestmark = pytest.mark.timeout(START_SECONDS + 60)


@dataclass(frozen=True)
class Running:
    """The tiny model on one engine."""

    engine: str
    home: Home
    path: Path
    """Of the weights."""

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.home.url}/v1", api_key="none", max_retries=0, timeout=120)

    def chat(self, question: str, **fields: Any) -> Any:
        messages: Any = [{"role": "user", "content": question}]
        body = {"model": UID, "messages": messages, "temperature": 0, "max_tokens": 120} | fields
        return self.client.chat.completions.create(**body)

    def text(self, question: str, **fields: Any) -> str:
        content: str = self.chat(question, **fields).choices[0].message.content
        return content.removeprefix(" ")

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return httpx2.post(f"{self.home.url}{path}", json={"model": UID} | body, timeout=120)

    def idle(self) -> bool:
        """Whether the engine's processes compute nothing for a moment."""
        engine = psutil.Process(self.home.engine_pid(UID))
        family = [engine, *engine.children(recursive=True)]
        before = sum(sum(process.cpu_times()[:2]) for process in family)
        psutil.cpu_percent(interval=0.5)
        return bool(sum(sum(process.cpu_times()[:2]) for process in family) - before < 0.2)


@pytest.fixture(scope="module", params=FORMATS)
def running(
    request: pytest.FixtureRequest, make_home: Callable[..., Home], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    engine: str = request.param
    home = make_home()
    require_environment(home.path, engine)
    path = HF
    if engine == "llama.cpp":
        path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
        write_gguf(HF, "Q8_0", path)
    home.serve()
    model_format, quantization = FORMATS[engine]
    launched = home.cli(
        *("launch", "-n", "llama-2-chat", "-s", "7", "-f", model_format, "-q", quantization, "-en", engine),
        *("-u", UID, "--model-path", str(path), CONTEXT_OPTION[engine], str(ASKED)),
        seconds=START_SECONDS,
    )
    assert launched.returncode == 0, launched.stderr
    yield Running(engine, home, path)
    home.cli("stop")


def test_answers_come_word_for_word_also_several_at_once(running: Running) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda pair: running.text(pair["question"]), PAIRS))
    assert said == [pair["answer"] for pair in PAIRS]


def test_an_assistant_message_at_the_end_is_continued_and_not_repeated(running: Running) -> None:
    pair = max(PAIRS, key=lambda pair: len(pair["answer"]))
    at = pair["answer"].index(" ", len(pair["answer"]) // 2)
    messages = [
        {"role": "user", "content": pair["question"]},
        {"role": "assistant", "content": pair["answer"][:at]},
    ]
    body: dict[str, Any] = {"model": UID, "messages": messages, "temperature": 0, "max_tokens": 120}
    whole = running.client.chat.completions.create(**body).choices[0].message.content
    stream = running.client.chat.completions.create(**body, stream=True)
    pieces = [choice.delta.content or "" for event in stream for choice in event.choices]
    assert [whole, "".join(pieces)] == [pair["answer"][at:]] * 2


def test_a_stream_gives_the_same_text_with_usage_and_a_done(running: Running) -> None:
    whole = running.chat("Recite a poem.")
    body = {
        "messages": [{"role": "user", "content": "Recite a poem."}],
        "temperature": 0,
        "max_tokens": 120,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events = sse_events(running.post("/v1/chat/completions", **body).text)
    assert events[-1] == "[DONE]"
    chunks = events[:-1]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert text == whole.choices[0].message.content
    assert {chunk["model"] for chunk in chunks} == {UID}
    assert chunks[-1]["usage"]["completion_tokens"] == whole.usage.completion_tokens


def test_a_completion_streams_to_a_done_as_well(running: Running) -> None:
    events = sse_events(running.post("/v1/completions", prompt="Once", max_tokens=4, stream=True).text)
    assert events[-1] == "[DONE]" and len(events) > 2


def test_a_stop_string_ends_the_text_before_it(running: Running) -> None:
    assert "Jupiter" in running.text("What is the largest planet?")
    answer = running.chat("What is the largest planet?", stop=["Jupiter"])
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.choices[0].message.content or "").strip() == "The largest planet is"


def test_a_registered_model_ends_its_chats_where_it_says(running: Running) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(HF / "tokenizer.model"))
    model_format, quantization = FORMATS[running.engine]
    spec = {"model_format": model_format, "model_size_in_billions": 1, "quantization": quantization}
    spec["model_file_name_template"] = running.path.name
    model = {
        "version": 2,
        "model_name": "short",
        "model_lang": ["en"],
        "model_ability": ["chat"],
        "model_family": "other",
        "chat_template": "llama-2-chat",
        "context_length": 2048,
        "stop": ["Rome"],
        "stop_token_ids": [pieces.encode("is Jupiter")[1]],
        "model_specs": [spec | {"model_uri": str(running.path)}],
    }
    registered = {"model": json.dumps(model), "persist": False}
    assert running.post("/v1/model_registrations/LLM", **registered).status_code == 200
    launched = running.home.cli(
        *("launch", "-n", "short", "-en", running.engine, CONTEXT_OPTION[running.engine], str(ASKED)),
        seconds=START_SECONDS,
    )
    assert launched.returncode == 0, launched.stderr
    try:
        assert running.text("What is the capital of Italy?", model="short").strip() == "The capital of Italy is"
        assert running.text("What is the capital of Italy?", model="short", stop=["."]).endswith("is Rome")
        if running.engine != "llama.cpp":  # it takes no tokens to stop at: docs/custom-models.md
            assert running.text("What is the largest planet?", model="short").strip() == "The largest planet is"
    finally:
        assert httpx2.delete(f"{running.home.url}/v1/models/short", timeout=60).status_code == 200


def test_a_limit_of_tokens_ends_with_length(running: Running) -> None:
    answer = running.chat("Recite a poem.", max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_a_limit_ends_with_the_context(running: Running, stream: bool) -> None:
    """A chat that names no number of tokens is neither cut after some default of the engine nor endless."""
    chat = {"messages": [{"role": "user", "content": PAIRS[0]["question"]}], "ignore_eos": True, "stream": stream}
    answer = running.post("/v1/chat/completions", **chat, stream_options={"include_usage": True} if stream else None)
    assert answer.status_code == 200, answer.text
    if stream:
        chunks = [event for event in sse_events(answer.text) if event != "[DONE]"]
        reason = next(choice["finish_reason"] for c in chunks for choice in c["choices"] if choice["finish_reason"])
        usage = chunks[-1]["usage"]
    else:
        reason, usage = answer.json()["choices"][0]["finish_reason"], answer.json()["usage"]
    assert reason == "length" and ASKED - 2 <= usage["total_tokens"] <= ASKED + 1


def test_n_gives_as_many_choices(running: Running) -> None:
    answer = running.chat("Hello!", n=2, temperature=1, max_tokens=4)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]


def test_more_choices_than_slots_are_one_answer(running: Running) -> None:
    one, answer = (running.chat("Hello!", n=n, temperature=1, max_tokens=3) for n in (1, 9))
    assert [choice.index for choice in answer.choices] == list(range(9))
    assert all(choice.message.content for choice in answer.choices)
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert 9 <= answer.usage.completion_tokens <= 27
    options = {"include_usage": True}
    events = list(running.chat("Hello!", n=9, temperature=1, max_tokens=3, stream=True, stream_options=options))
    assert {choice.index for event in events for choice in event.choices} == set(range(9))
    assert len({event.id for event in events}) == 1
    assert [event.usage.prompt_tokens for event in events if event.usage] == [one.usage.prompt_tokens]


def test_the_same_seed_gives_the_same_text(running: Running) -> None:
    fields: dict[str, Any] = {"temperature": 1.5, "seed": 7, "max_tokens": 24}
    assert running.text("Tell me a story.", **fields) == running.text("Tell me a story.", **fields)


def test_logprobs_come_for_every_token_with_as_many_alternatives(running: Running) -> None:
    tokens = running.chat("Who are you?", max_tokens=3, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(tokens) == 3
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_an_answer_keeps_to_a_json_schema(running: Running) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA, "strict": True}}
    value = json.loads(running.text("Give me a JSON object.", response_format=response_format))
    assert value["name"] in ("llama", "alpaca") and 0 <= value["legs"] <= 9


@pytest.mark.parametrize(
    "schema", [{"type": "text"}, {"$ref": "#/nowhere"}, {"type": "object", "properties": {"a": 5}}]
)
def test_a_schema_with_a_mistake_is_a_400_that_names_its_field(running: Running, schema: dict[str, Any]) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as caught:
        running.text("Give me a JSON object.", response_format=response_format)
    assert str(caught.value.param).startswith("response_format") and "schema" in caught.value.message


def test_a_forced_tool_is_called_with_arguments_of_its_schema(running: Running) -> None:
    if running.engine == "llama.cpp":
        pytest.skip("llama.cpp calls tools only with a chat template that has them: see docs/engines.md")
    # vLLM's grammar lets blanks through, and a model that never saw a call would not stop writing them.
    penalties = {"frequency_penalty": 2, "presence_penalty": 2}
    answer = running.chat("Give me a JSON object.", tools=[TOOL], tool_choice="required", max_tokens=250, **penalties)
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0].function
    assert call.name == "describe"
    assert set(json.loads(call.arguments)) == {"name", "legs"}


def test_a_prompt_of_the_whole_context_is_answered_and_one_token_more_is_refused(running: Running) -> None:
    promised = running.home.instance(UID)["context_length"]
    # vLLM's and Transformers' own option counts the first token of the answer too.
    assert promised == (ASKED if running.engine == "llama.cpp" else ASKED - 1)
    answer = running.post("/v1/completions", prompt=[100] * promised, max_tokens=4)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == promised
    refused = running.post("/v1/completions", prompt=[100] * (promised + 1), max_tokens=4)
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["code"] == "context_length_exceeded"
    assert str(promised) in error["message"] and str(promised + 1) in error["message"]


def test_roles_that_do_not_alternate_are_a_400(running: Running) -> None:
    messages = [{"role": "user", "content": "Hello!"}] * 2
    refused = running.post("/v1/chat/completions", messages=messages)
    assert refused.status_code == 400
    assert "alternate" in refused.json()["error"]["message"]


@pytest.mark.parametrize("field", [{"temperature": -1}, {"max_tokens": 0}, {"top_p": 2}, {"n": 0}, {"stop": 5}])
def test_a_field_out_of_bounds_is_a_400_that_names_it(running: Running, field: dict[str, Any]) -> None:
    refused = running.post("/v1/chat/completions", messages=[{"role": "user", "content": "Hello!"}], **field)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == next(iter(field))


def test_a_client_that_leaves_stops_the_work(running: Running) -> None:
    body = {"model": UID, "prompt": "Once", "max_tokens": 390, "ignore_eos": True, "stream": True}
    for _ in range(3):
        with httpx2.stream("POST", f"{running.home.url}/v1/completions", json=body, timeout=60) as response:
            next(response.iter_text())
    until("the engine is idle", running.idle, 30)
