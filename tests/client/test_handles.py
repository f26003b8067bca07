"""Handles: which one a model gets, and what its methods send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, events
from tests.client.either import Either
from xinference.client import (
    Client,
    RESTfulChatModelHandle,
    RESTfulGenerateModelHandle,
    further_fields,
    handlers,
)
from xinference.errors import Problem
from xinference.protocol.requests import Chat, Completion

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CHAT = ("POST", "/v1/chat/completions")
COMPLETION = ("POST", "/v1/completions")


@pytest.fixture
def model(canned: Canned, connect: Callable[..., Either]) -> Callable[..., Either]:
    """Makes the handle of a model by its description."""

    def get(model_type: str = "LLM", *abilities: str) -> Either:
        canned.answers["GET", "/v1/models/m"] = Answer({"model_type": model_type, "model_ability": list(abilities)})
        handle = connect(canned.url, "sk-1")("get_model", "m")
        assert isinstance(handle, Either)
        return handle

    return get


@pytest.mark.parametrize(
    ("model_type", "abilities", "kind"),
    [
        ("LLM", ["generate", "chat", "tools"], "ChatModelHandle"),
        ("LLM", ["generate"], "GenerateModelHandle"),
        ("embedding", [], "EmbeddingModelHandle"),
        ("rerank", [], "RerankModelHandle"),
        ("image", ["text2image"], "ImageModelHandle"),
        ("audio", [], "AudioModelHandle"),
    ],
)
def test_a_model_gets_the_handle_of_its_type_and_ability(
    model: Callable[..., Either], model_type: str, abilities: list[str], kind: str
) -> None:
    handle = model(model_type, *abilities)
    assert type(handle.runner) in (getattr(handlers, kind), getattr(handlers, f"Async{kind}"))
    handle.close()


def test_a_handle_knows_its_model_and_server(canned: Canned, model: Callable[..., Either]) -> None:
    handle: Any = model("LLM", "chat").runner
    assert (handle._model_uid, handle._base_url) == ("m", canned.url)
    assert handle.auth_headers == {"Authorization": "Bearer sk-1"}


def test_a_chat_handle_generates_too() -> None:
    assert issubclass(RESTfulChatModelHandle, RESTfulGenerateModelHandle)
    assert issubclass(handlers.AsyncChatModelHandle, handlers.AsyncGenerateModelHandle)


def test_a_handle_can_be_made_without_a_client(canned: Canned) -> None:
    canned.answers[COMPLETION] = Answer({"choices": []})
    with RESTfulGenerateModelHandle("m", canned.url, auth_headers={}) as handle:
        assert handle.generate("x") == {"choices": []}


@pytest.mark.parametrize("described", [{"model_type": "LLM", "model_ability": ["sing"]}, {"model_type": "soup"}])
def test_a_model_that_no_handle_fits_is_a_value_error(canned: Canned, client: Either, described: Any) -> None:
    canned.answers["GET", "/v1/models/m"] = Answer(described)
    with pytest.raises(ValueError, match="Unrecognized model"):
        client("get_model", "m")


@pytest.mark.parametrize("model_type", ["image", "audio", "video", "flexible"])
def test_a_type_that_is_not_served_is_refused_by_its_handle(model: Callable[..., Either], model_type: str) -> None:
    with pytest.raises(Problem, match=r"text_to_image\(\) of 'm': this version serves LLM, embedding and rerank"):
        model(model_type)("text_to_image", "a cat")


def test_a_chat_sends_messages_and_config(canned: Canned, model: Callable[..., Either]) -> None:
    canned.answers[CHAT] = Answer({"choices": []})
    handle = model("LLM", "chat")
    assert handle("chat", MESSAGES, generate_config={"max_tokens": 3, "temperature": 0}) == {"choices": []}
    asked = canned.asked[-1]
    assert asked.body == {"model": "m", "messages": MESSAGES, "max_tokens": 3, "temperature": 0}
    assert asked.headers["authorization"] == "Bearer sk-1"


def test_a_streamed_chat_ends_at_done(canned: Canned, model: Callable[..., Either]) -> None:
    canned.answers[CHAT] = events({"a": 1}, {"a": 2}, "[DONE]")
    assert model("LLM", "chat")("chat", MESSAGES, generate_config={"stream": True}) == [{"a": 1}, {"a": 2}]
    assert canned.asked[-1].body == {"model": "m", "messages": MESSAGES, "stream": True}


def test_a_completion_sends_prompt_and_config(canned: Canned, model: Callable[..., Either]) -> None:
    canned.answers[COMPLETION] = [Answer({"choices": []}), events({"a": 1}, "[DONE]")]
    handle = model("LLM", "generate")
    assert handle("generate", "Once", {"max_tokens": 3}) == {"choices": []}
    assert canned.asked[-1].body == {"model": "m", "prompt": "Once", "max_tokens": 3}
    assert handle("generate", prompt="Once", generate_config={"stream": True}) == [{"a": 1}]


def test_an_error_event_in_a_stream_is_raised(canned: Canned) -> None:
    canned.answers[COMPLETION] = events({"a": 1}, {"error": {"message": "engine died", "code": "died"}})
    with RESTfulGenerateModelHandle("m", canned.url) as handle:
        stream = handle.generate("x", {"stream": True})
        assert next(stream) == {"a": 1}
        with pytest.raises(RuntimeError, match="engine died"):
            next(stream)


def test_a_stream_without_its_end_is_a_problem(canned: Canned, model: Callable[..., Either]) -> None:
    canned.answers[COMPLETION] = events({"a": 1})
    with pytest.raises(Problem, match="before the answer was complete"):
        model("LLM", "generate")("generate", "x", {"stream": True})


def test_embeddings_are_asked_for_with_further_fields(canned: Canned, model: Callable[..., Either]) -> None:
    canned.answers["POST", "/v1/embeddings"] = Answer({"data": []})
    canned.answers["POST", "/v1/convert_ids_to_tokens"] = Answer(["a"])
    handle = model("embedding")
    assert handle("create_embedding", ["x", "y"], truncate_prompt_tokens=8) == {"data": []}
    assert canned.asked[-1].body == {"model": "m", "input": ["x", "y"], "truncate_prompt_tokens": 8}
    assert handle("convert_ids_to_tokens", [1, 2]) == ["a"]
    assert canned.asked[-1].body == {"model": "m", "input": [1, 2]}


def test_documents_are_ranked_by_position_or_name(canned: Canned, model: Callable[..., Either]) -> None:
    canned.answers["POST", "/v1/rerank"] = Answer({"results": []})
    handle = model("rerank")
    assert handle("rerank", ["a", "b"], "q", 1, return_documents=True, kw=2) == {"results": []}
    assert canned.asked[-1].body == {
        "model": "m",
        "documents": ["a", "b"],
        "query": "q",
        "top_n": 1,
        "return_documents": True,
        "kw": 2,
    }


def test_the_handles_of_one_client_outlive_it(canned: Canned) -> None:
    canned.answers["GET", "/v1/models/m"] = Answer({"model_type": "LLM", "model_ability": ["chat"]})
    canned.answers[CHAT] = Answer({"choices": []})
    with Client(canned.url, check=False) as client:
        handle = client.get_model("m")
    with handle:
        assert handle.chat(MESSAGES) == {"choices": []}


def test_the_signature_of_a_handles_method_is_without_the_model() -> None:
    import inspect

    handle = RESTfulGenerateModelHandle("m", "http://127.0.0.1:1")
    assert list(inspect.signature(handle.generate).parameters) == ["prompt", "generate_config", "fields"]


@pytest.mark.parametrize(
    ("abilities", "method", "said"),
    [
        (("LLM", "chat"), "create_embedding", "is for embedding models (model_type embedding), and 'm' is a language"),
        (("LLM", "chat"), "rerank", "It has chat(), generate()."),
        (("LLM", "generate"), "chat", "is for language models with the ability chat, and 'm' is a language model that"),
        (("embedding",), "chat", "and 'm' is an embedding model. It has create_embedding(), convert_ids_to_tokens()."),
        (("rerank",), "generate", "and 'm' is a rerank model. It has rerank()."),
    ],
)
def test_a_method_of_another_kind_of_model_is_explained(
    model: Callable[..., Either], abilities: tuple[str, ...], method: str, said: str
) -> None:
    handle = model(*abilities)
    assert not hasattr(handle.runner, method) and not hasattr(handle.runner, "nothing_of_the_sort")
    with pytest.raises(AttributeError) as raised:
        getattr(handle.runner, method)
    assert f"{method}() is for" in str(raised.value) and said in str(raised.value)
    handle.close()


@pytest.mark.parametrize(("method", "argument", "path"), [("chat", MESSAGES, CHAT), ("generate", "Hi", COMPLETION)])
def test_a_field_of_the_request_may_be_an_argument(
    canned: Canned, model: Callable[..., Either], method: str, argument: Any, path: tuple[str, str]
) -> None:
    canned.answers[path] = Answer({"id": "x"})
    handle = model("LLM", "chat")
    assert handle(method, argument, max_tokens=5, top_k=3, generate_config={"max_tokens": 9}) == {"id": "x"}
    body = canned.asked_for(*path)[-1].body
    assert (body["max_tokens"], body["top_k"]) == (5, 3)
    with pytest.raises(TypeError, match=r"'max_token'. Did you mean max_tokens\? .*generate_config=\{'max_token'"):
        handle(method, argument, max_token=5)
    with pytest.raises(TypeError, match="Did you mean generate_config"):
        handle(method, argument, generate_confg={})
    handle.close()


def test_the_fields_that_may_be_arguments_are_those_of_the_apis() -> None:
    own = {"model", "messages", "prompt", "tools", "enable_thinking"}
    for known, form in ((further_fields.CHAT, Chat), (further_fields.COMPLETION, Completion)):
        assert known == set(form.__struct_fields__) - own | {"top_k", "min_p"}
