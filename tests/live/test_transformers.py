"""The Transformers server with the tiny model: answers word for word, and every promise of its protocol."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.compressed_writer import write_fp8_blocks
from tests.live.test_prompt import CONVERSATIONS, Message, reference
from tests.live.transformers_engine import HF, KEY, UID, RunningEngine, engine, python_of_environment
from tests.support.polling import until
from xinference.local_commands.inspect import inspect

pytestmark = pytest.mark.timeout(300)
QUESTIONS = json.loads((HF / "qa.json").read_text(encoding="utf-8"))
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "maximum": 9, "minimum": 0},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with engine(tmp_path_factory.mktemp("engine") / "log") as running:
        yield running


def answers_all(running: RunningEngine) -> None:
    """Ask everything, several at a time, so that sequences join and leave the batch."""
    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda pair: running.text(pair["question"], max_tokens=120), QUESTIONS))
    assert said == [pair["answer"] for pair in QUESTIONS]


def test_the_whole_model_answers_word_for_word_in_a_moving_batch(tiny: RunningEngine) -> None:
    answers_all(tiny)


@pytest.mark.parametrize("quantization", ["8-bit", "4-bit"])
def test_the_quantized_model_answers_word_for_word(quantization: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with engine(tmp_path_factory.mktemp("engine") / "log", quantization=quantization) as running:
        answers_all(running)


def test_packed_floats_are_unpacked_and_answer_word_for_word(tmp_path: Path) -> None:
    write_fp8_blocks(HF, tmp_path / "packed")
    packed = {"model_path": str(tmp_path / "packed"), "quantization": "FP8"}
    with engine(tmp_path / "log", **packed) as running:
        answers_all(running)


def test_weights_that_bitsandbytes_has_packed_answer_word_for_word(tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig\n"
        "config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')\n"
        "model = AutoModelForCausalLM.from_pretrained(\n"
        "    sys.argv[1], quantization_config=config, dtype=torch.bfloat16, device_map={'': 'cpu'})\n"
        "model.save_pretrained(sys.argv[2])\n"
        "AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])\n"
    )
    words = [str(python_of_environment()), "-I", "-c", program, str(HF), str(tmp_path / "packed")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == 0, ended.stderr[-2000:]
    report = inspect(str(tmp_path / "packed"))
    assert (report["model_format"], report["quantization"], report["packing"]) == ("bnb", "4-bit", "bitsandbytes")
    packed = {"model_path": str(tmp_path / "packed"), "quantization": "4-bit"}
    with engine(tmp_path / "log", **packed) as running:
        answers_all(running)


# -- prompts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_the_prompt_is_exactly_the_reference_tokens(tiny: RunningEngine, messages: list[Message]) -> None:
    expected = reference(messages)
    assert tiny.post("/tokenize", model=UID, messages=messages).json()["tokens"] == expected
    answer = tiny.post("/v1/chat/completions", model=UID, messages=messages, max_tokens=1)
    assert answer.json()["usage"]["prompt_tokens"] == len(expected)


def test_a_template_that_refuses_is_a_400_with_its_words(tiny: RunningEngine) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    answer = tiny.post("/v1/chat/completions", model=UID, messages=messages)
    assert answer.status_code == 400 and "must alternate" in answer.json()["error"]["message"]


def test_texts_and_token_ids_are_prompts_alike(tiny: RunningEngine) -> None:
    text = "[INST] Who are you? [/INST]"
    tokens = tiny.post("/tokenize", model=UID, prompt=text).json()["tokens"]
    asked = {"model": UID, "temperature": 0, "max_tokens": 8}
    answers = [tiny.post("/v1/completions", prompt=p, **asked).json() for p in (text, tokens, [text, text], [tokens])]
    texts = [choice["text"] for answer in answers for choice in answer["choices"]]
    assert len(texts) == 5 and len(set(texts)) == 1 and texts[0].startswith(" I am")
    assert answers[2]["usage"]["prompt_tokens"] == 2 * len(tokens)


def test_echo_repeats_the_prompt_and_its_log_probabilities(tiny: RunningEngine) -> None:
    answer = tiny.post("/v1/completions", model=UID, prompt="Hello!", echo=True, logprobs=1, max_tokens=1).json()
    choice = answer["choices"][0]
    assert choice["text"].startswith("Hello!")
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert len(choice["logprobs"]["tokens"]) == answer["usage"]["total_tokens"]


def test_tokens_become_text_again(tiny: RunningEngine) -> None:
    tokens = tiny.post("/tokenize", model=UID, content="Hello 🙂").json()["tokens"]
    assert tiny.post("/detokenize", model=UID, tokens=tokens).json()["content"].strip() == "Hello 🙂"


# -- answers ----------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_same_text_without_a_broken_character(tiny: RunningEngine) -> None:
    messages = [{"role": "user", "content": "Show me a smiley."}]
    options = {"include_usage": True}
    *chunks, usage, done = tiny.stream("/v1/chat/completions", messages=messages, stream_options=options)
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == "Here it is: 🙂🦙" and not any("\ufffd" in piece for piece in pieces)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop" and done == "[DONE]"
    assert usage["usage"] == tiny.chat("Show me a smiley.")["usage"]


@pytest.mark.parametrize("stop", ["llama, a", "🦙", ["never", "made only"]])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(tiny: RunningEngine, stop: Any) -> None:
    for question in ("Who are you?", "Show me a smiley."):
        whole, cut = tiny.text(question), tiny.chat(question, stop=stop)["choices"][0]
        ends = [whole.find(s) for s in ([stop] if isinstance(stop, str) else stop) if s in whole]
        assert cut["message"]["content"] == (whole[: min(ends)] if ends else whole)
        assert cut["finish_reason"] == "stop"


def test_a_limit_of_tokens_ends_with_length_and_counts(tiny: RunningEngine) -> None:
    answer = tiny.chat(max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 3


def test_a_stop_token_ends_and_ignore_eos_goes_on(tiny: RunningEngine) -> None:
    first = tiny.post("/tokenize", model=UID, content="I").json()["tokens"][-1]
    assert tiny.text(stop_token_ids=[first]) == ""
    assert tiny.chat(ignore_eos=True, max_tokens=40)["usage"]["completion_tokens"] == 40


def test_a_seed_gives_the_same_text_alone_and_in_a_batch(tiny: RunningEngine) -> None:
    fields: dict[str, Any] = {"temperature": 2.0, "top_p": 1.0, "seed": 7, "max_tokens": 24, "ignore_eos": True}
    alone = tiny.text(**fields)
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(tiny.text, **{**fields, "seed": seed}) for seed in (1, 2, 3)]
        assert tiny.text(**fields) == alone
    assert len({alone, *(other.result() for other in others)}) == 4


@pytest.mark.parametrize("only", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}], ids=str)
def test_a_choice_of_one_is_the_likeliest_however_hot(tiny: RunningEngine, only: dict[str, float]) -> None:
    hot: dict[str, Any] = {"temperature": 2.0, "top_p": 1.0, "seed": 7, "max_tokens": 24, "ignore_eos": True}
    likeliest = tiny.text(max_tokens=24, ignore_eos=True)
    assert tiny.text(**hot) != likeliest
    assert tiny.text(**(hot | only)) == likeliest


def test_top_k_and_min_p_leave_out_what_is_less_likely(tiny: RunningEngine) -> None:
    temperature = 2.0
    hot = {"temperature": temperature, "top_p": 1.0, "seed": 7, "max_tokens": 48, "ignore_eos": True}
    asked: dict[str, Any] = {**hot, "logprobs": True, "top_logprobs": 5}

    def chosen(**fields: Any) -> list[Any]:
        entries: list[Any] = tiny.chat(**asked, **fields)["choices"][0]["logprobs"]["content"]
        return entries

    def rank(entry: Any) -> int:
        return sum(top["logprob"] > entry["logprob"] for top in entry["top_logprobs"])

    def distance(entry: Any) -> float:
        return float(entry["top_logprobs"][0]["logprob"] - entry["logprob"])

    assert max(map(rank, chosen())) == 5  # without a limit some are not even among the five
    assert 1 <= max(map(rank, chosen(top_k=3))) <= 2
    # The limit is on the probabilities at this temperature, what is reported is those of the model.
    most = -math.log(0.3) * temperature
    assert max(map(distance, chosen())) > most
    assert 0 < max(map(distance, chosen(min_p=0.3))) <= most + 1e-3


def test_n_gives_different_choices_where_there_is_chance_and_one_prompt_is_counted(tiny: RunningEngine) -> None:
    answer = tiny.chat(n=3, seed=1, temperature=2.0, top_p=1.0, max_tokens=16, ignore_eos=True)
    texts = {choice["message"]["content"] for choice in answer["choices"]}
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2] and len(texts) == 3
    assert answer["usage"]["prompt_tokens"] == tiny.chat(max_tokens=1)["usage"]["prompt_tokens"]


def test_logprobs_come_for_every_token_with_as_many_alternatives(tiny: RunningEngine) -> None:
    content = tiny.chat(logprobs=True, top_logprobs=3, max_tokens=4)["choices"][0]["logprobs"]["content"]
    assert len(content) == 4 and all(len(entry["top_logprobs"]) == 3 for entry in content)
    assert all(entry["logprob"] == max(top["logprob"] for top in entry["top_logprobs"]) for entry in content)
    assert bytes(b for entry in content for b in entry["bytes"]).decode() == " I am a t"


@pytest.mark.parametrize(
    "extreme",
    [
        {"temperature": 1e-320},
        {"temperature": 1e-30, "top_p": 0.5},
        {"temperature": 1e-5, "logit_bias": {"5": 100, "6": -100}, "repetition_penalty": 1e30},
        {"temperature": 1, "repetition_penalty": 1e-300},
    ],
)
def test_numbers_at_the_limits_of_floats_end_nobodys_answer(tiny: RunningEngine, extreme: dict[str, Any]) -> None:
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(tiny.text, "Recite a poem.", max_tokens=40) for _ in range(3)]
        tiny.chat("Recite a poem.", max_tokens=8, **extreme)  # is answered with 200
        assert len({other.result() for other in others}) == 1


def test_a_schema_that_no_text_satisfies_is_the_clients_mistake_also_in_a_stream(tiny: RunningEngine) -> None:
    schema = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = {"model": UID, "messages": [{"role": "user", "content": "a"}], "response_format": form}
    refused = tiny.post("/v1/chat/completions", **body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_constraint")
    events = tiny.stream("/v1/chat/completions", **body)
    assert events[-1]["error"]["code"] == "invalid_constraint"


def test_logit_bias_and_penalties_change_what_is_said(tiny: RunningEngine) -> None:
    first = tiny.post("/tokenize", model=UID, content="I").json()["tokens"][-1]
    assert not tiny.text(logit_bias={str(first): -100}, max_tokens=8).startswith("I ")
    text = "a a a a a a"
    plain = tiny.post("/v1/completions", model=UID, prompt=text, temperature=0, max_tokens=12).json()
    for penalty in ({"repetition_penalty": 5.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        fields = {"model": UID, "prompt": text, "temperature": 0, "max_tokens": 12, "ignore_eos": True} | penalty
        assert tiny.post("/v1/completions", **fields).json()["choices"] != plain["choices"], penalty


# -- grammars ---------------------------------------------------------------------------------------------------


def test_an_answer_keeps_to_a_json_schema(tiny: RunningEngine) -> None:
    schema = TOOL["function"]["parameters"]
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for fields in ({"response_format": wanted}, {"guided_json": schema}):
        value = json.loads(tiny.text("Give me a JSON object.", **fields))
        assert value["city"] in ("Paris", "Rome") and 0 <= value["days"] <= 9


def test_json_object_is_an_object(tiny: RunningEngine) -> None:
    answer = tiny.text("Give me a JSON object.", response_format={"type": "json_object"}, max_tokens=60)
    assert json.loads(answer) == {"name": "llama", "legs": 4}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_tool_is_called_with_arguments_of_its_schema(tiny: RunningEngine, choice: Any) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    fields = {"messages": messages, "tools": [TOOL], "tool_choice": choice}
    whole = tiny.chat(**fields)["choices"][0]
    chunks = tiny.stream("/v1/chat/completions", **fields)[:-1]
    streamed = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    for calls, finish in (
        (whole["message"]["tool_calls"], whole["finish_reason"]),
        (streamed, chunks[-1]["choices"][0]["finish_reason"]),
    ):
        assert finish == "tool_calls" and [call["function"]["name"] for call in calls] == ["get_weather"]
        assert json.loads(calls[0]["function"]["arguments"])["city"] in ("Paris", "Rome")


def test_a_tool_choice_of_none_and_auto_leave_the_answer_alone(tiny: RunningEngine) -> None:
    for choice in ("none", "auto"):
        assert tiny.text("Hello!", tools=[TOOL], tool_choice=choice) == "Hello! How can I help you today?"


# -- limits and errors ------------------------------------------------------------------------------------------


def test_a_prompt_of_the_whole_context_is_answered_and_one_token_more_is_a_400(tiny: RunningEngine) -> None:
    full = tiny.post("/v1/completions", model=UID, prompt=[5] * 300, max_tokens=9, ignore_eos=True)
    assert full.json()["usage"]["completion_tokens"] == 1
    assert full.json()["choices"][0]["finish_reason"] == "length"
    error = tiny.post("/v1/completions", model=UID, prompt=[5] * 301).json()["error"]
    assert (error["type"], error["n_prompt_tokens"], error["n_ctx"]) == ("exceed_context_size_error", 301, 300)


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": "other"}, 404, "other"),
        ({"temperature": -1}, 400, "temperature"),
        ({"logit_bias": {"99999": 1}}, 400, "99999"),
        ({"logit_bias": {"²": 1}}, 400, "²"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}}, 400, "odd"),
        ({"tool_choice": "required"}, 400, "no tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "accepts only text"),
    ],
)
def test_bad_input_is_refused_in_openais_envelope(
    tiny: RunningEngine, fields: dict[str, Any], status: int, said: str
) -> None:
    body = {"model": UID, "messages": [{"role": "user", "content": "x"}]} | fields
    answer = tiny.post("/v1/chat/completions", **body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"] and "Traceback" not in answer.text


def test_its_computing_thread_shows_progress_idle_and_between_steps(tiny: RunningEngine) -> None:
    def progress() -> int:
        return httpx2.get(f"{tiny.url}/progress", headers=tiny.headers, timeout=60).status_code

    assert progress() == 200
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(tiny.text, max_tokens=200, ignore_eos=True)
        while not asking.done():
            assert progress() == 200
        assert asking.result()


def test_every_path_but_health_asks_for_the_key(tiny: RunningEngine) -> None:
    for path, status in (("/health", 200), ("/v1/models", 401), ("/metrics", 401)):
        assert httpx2.get(f"{tiny.url}{path}", timeout=30).status_code == status
    headers = {"Authorization": f"Bearer {KEY}"}
    models = httpx2.get(f"{tiny.url}/v1/models", headers=headers, timeout=30).json()
    assert [model["id"] for model in models["data"]] == [UID]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_rows(tiny: RunningEngine, stream: bool) -> None:
    body = {"model": UID, "prompt": "Hello!", "max_tokens": 290, "ignore_eos": True, "n": 40, "stream": stream}
    with httpx2.Client(timeout=120) as client:
        request = client.build_request("POST", f"{tiny.url}/v1/completions", json=body, headers=tiny.headers)
        if stream:
            answer = client.send(request, stream=True)
            next(answer.iter_raw())
            answer.close()
        else:
            with pytest.raises(httpx2.TimeoutException):
                client.post(request.url, json=body, headers=tiny.headers, timeout=0.5)
    until("nothing is computed any more", lambda: tiny.metric("running") + tiny.metric("waiting") == 0, 10)
    assert tiny.text("Goodbye.") == "Goodbye, and have a nice day!"


# -- limits -----------------------------------------------------------------------------------------------------

TEMPLATE_HEAD = "{% set word = messages[-1].content %}"
TEMPLATES = {
    "two loops": (
        "{% if word == 'bad' %}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}"
    ),
    "a text that doubles": (
        "{% if word == 'bad' %}{% set ns = namespace(t='a' * 1000) %}"
        "{% for a in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{% endif %}"
    ),
    "a text without end": "{% if word == 'bad' %}{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_without_end_is_a_400_and_others_are_answered_meanwhile(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    template = TEMPLATE_HEAD + TEMPLATES[name] + "[INST] {{ word }} [/INST]"
    bad = {"model": UID, "messages": [{"role": "user", "content": "bad"}], "max_tokens": 2}
    with engine(tmp_path_factory.mktemp("engine") / "log", chat_template=template) as running:
        running.text("hello", max_tokens=2)
        with ThreadPoolExecutor(2) as pool:
            refused = [pool.submit(lambda: running.post("/v1/chat/completions", **bad)) for _ in range(2)]
            answered = 0
            while not all(one.done() for one in refused):
                running.text("hello", max_tokens=2)
                answered += 1
        for one in refused:
            error = one.result().json()["error"]
            assert (one.result().status_code, error["code"]) == (400, "template_limit"), error
        assert answered
        running.text("hello", max_tokens=2)


def test_a_schema_without_end_is_a_400_and_others_are_answered_meanwhile(tiny: RunningEngine) -> None:
    schema = {"type": "string", "allOf": [{"pattern": f"^.*a{n}.*$"} for n in range(299)]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = {"model": UID, "messages": [{"role": "user", "content": "a"}], "response_format": wanted}
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(lambda: tiny.post("/v1/chat/completions", **body))
        while not refused.done():
            tiny.text(max_tokens=2)
    error = refused.result().json()["error"]
    assert (refused.result().status_code, error["param"]) == (400, "response_format"), error
    assert error["code"] in ("constraint_too_complex", None)


def test_the_refusal_of_a_schema_names_the_field_that_has_it(tiny: RunningEngine) -> None:
    schema, messages = {"type": "text"}, [{"role": "user", "content": "a"}]
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    for name, value in (("guided_json", schema), ("response_format", form)):
        answer = tiny.post("/v1/chat/completions", model=UID, messages=messages, **{name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_an_answer_after_a_message_of_the_assistant_continues_it_or_is_a_new_message(tiny: RunningEngine) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "The"}]
    fields: list[dict[str, Any]] = [{}, {"continue_final_message": True}, {"continue_final_message": False}]
    prompts = [tiny.post("/apply-template", model=UID, messages=messages, **field).json()["prompt"] for field in fields]
    assert prompts[0] == prompts[1] and prompts[0].endswith("The") and not prompts[2].endswith("The")
    counts = [tiny.chat(messages=messages, max_tokens=1, **field)["usage"]["prompt_tokens"] for field in fields]
    assert counts[0] == counts[1] < counts[2], "the end of the message is in the last prompt"


def test_the_arguments_of_the_renderer_itself_are_not_the_clients(tiny: RunningEngine) -> None:
    for name in ("chat_template", "tokenize", "return_assistant_tokens_mask"):
        body = {"model": UID, "messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {name: "x"}}
        answer = tiny.post("/v1/chat/completions", **body)
        assert answer.status_code == 400 and name in answer.text


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_a_launch_sets_the_variables_of_the_template_and_a_request_overrides_them(
    tmp_path: Path, form: Callable[[dict[str, bool]], Any]
) -> None:
    thinks = "{{ 'thinks for a long time and then answers' if enable_thinking else 'answers' }}"
    template = f"{thinks}: {{{{ messages[0]['content'] }}}}"
    defaults = form({"enable_thinking": False})
    with engine(tmp_path / "log", chat_template=template, default_chat_template_kwargs=defaults) as running:
        messages = [{"role": "user", "content": "hello"}]
        assert running.post("/apply-template", model=UID, messages=messages).json() == {"prompt": "answers: hello"}
        plain = running.chat("hello", max_tokens=1)["usage"]["prompt_tokens"]
        thinking = running.chat("hello", max_tokens=1, chat_template_kwargs={"enable_thinking": True})
        assert thinking["usage"]["prompt_tokens"] != plain
