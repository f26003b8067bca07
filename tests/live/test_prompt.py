"""Llama-2's prompt, token by token, against the form of its authors encoded with SentencePiece itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sentencepiece

from tests.formats.gguf_model import write_gguf
from tests.support.home import Home

ASSETS = Path(__file__).parent.parent / "assets"
GGML = ASSETS / "tiny-llama2-chat-ggmlv3" / "tiny-llama2-chat.ggmlv3.q4_0.bin"
HF = ASSETS / "tiny-llama2-chat-hf"
Message = dict[str, str]

CONVERSATIONS: dict[str, list[Message]] = {
    "one question": [{"role": "user", "content": "Who are you?"}],
    "a system message": [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Hello!"},
    ],
    "several turns": [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello! How can I help you today?"},
        {"role": "user", "content": "What is 1+1?"},
        {"role": "assistant", "content": "1+1 is 2."},
        {"role": "user", "content": "Thank you."},
    ],
    "a system message and several turns": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Say hello in Japanese."},
        {"role": "assistant", "content": "こんにちは"},
        {"role": "user", "content": "Goodbye."},
    ],
}


def reference(messages: list[Message]) -> list[int]:
    """Each turn is BOS, `[INST] question [/INST] answer ` and EOS, encoded on its own; the last has no answer."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(HF / "tokenizer.model"))
    turns = list(messages)
    if turns[0]["role"] == "system":
        system = turns.pop(0)["content"]
        turns[0] = {"role": "user", "content": f"<<SYS>>\n{system}\n<</SYS>>\n\n{turns[0]['content']}"}
    tokens: list[int] = []
    for question, reply in zip(turns[::2], [*turns[1::2], None], strict=True):
        text = f"[INST] {question['content']} [/INST]"
        if reply is None:
            return [*tokens, tokenizer.bos_id(), *tokenizer.encode(text)]
        encoded = tokenizer.encode(f"{text} {reply['content']} ")
        tokens += [tokenizer.bos_id(), *encoded, tokenizer.eos_id()]
    raise AssertionError("the last message is a question")


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make_home()
    home.serve()
    gguf = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_gguf(HF, "Q8_0", gguf)
    for uid, model_format, path in (("ggmlv3", "ggmlv3", GGML), ("ggufv2", "ggufv2", gguf)):
        launched = home.launch(
            model_name="llama-2-chat", model_uid=uid, model_format=model_format, model_path=str(path)
        )
        assert launched.status_code == 200, launched.text
    return home


def post(home: Home, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{home.url}{path}", json=body, timeout=60)


@pytest.mark.parametrize("uid", ["ggmlv3", "ggufv2"])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_the_engine_computes_exactly_the_reference_tokens(home: Home, uid: str, messages: list[Message]) -> None:
    expected = reference(messages)
    prompt = post(home, "/apply-template", model=uid, messages=messages).json()["prompt"]
    tokenized = post(home, "/tokenize", model=uid, content=prompt, add_special=True, parse_special=True)
    assert tokenized.json()["tokens"] == expected
    answered = post(home, "/v1/chat/completions", model=uid, messages=messages, max_tokens=1)
    assert answered.json()["usage"]["prompt_tokens"] == len(expected)


@pytest.mark.parametrize("uid", ["ggmlv3", "ggufv2"])
@pytest.mark.parametrize(
    ("roles", "said"),
    [
        (("user", "user"), "alternate"),
        (("assistant", "user"), "alternate"),
        (("system",), "alternate"),
        (("system", "assistant"), "alternate"),
    ],
)
def test_roles_that_do_not_alternate_are_a_400(home: Home, uid: str, roles: tuple[str, ...], said: str) -> None:
    messages = [{"role": role, "content": "Hello!"} for role in roles]
    answer = post(home, "/v1/chat/completions", model=uid, messages=messages)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("uid", ["ggmlv3", "ggufv2"])
def test_two_messages_of_the_assistant_at_the_end_are_one(home: Home, uid: str) -> None:
    messages = [{"role": role, "content": "Hello!"} for role in ("user", "assistant", "assistant")]
    joined = [messages[0], {"role": "assistant", "content": "Hello!\n\nHello!"}]
    answers = [
        post(home, "/v1/chat/completions", model=uid, messages=each, temperature=0, max_tokens=8)
        for each in (messages, joined)
    ]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    assert answers[0].json()["choices"][0]["message"] == answers[1].json()["choices"][0]["message"]
