"""The requests to a running model; each function becomes a method of the model's handle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.chat_arguments import read_chat
from xinference.client.further_fields import CHAT, COMPLETION, check_further
from xinference.client.request import Request, StreamRequest

Answer = Request[Json] | StreamRequest[Json]


def chat(
    model_uid: str,
    /,
    messages: str | Sequence[Json] | None = None,
    *positional: Any,
    tools: Sequence[Json] | None = None,
    enable_thinking: bool | None = None,
    generate_config: Mapping[str, Any] | None = None,
    prompt: str | None = None,
    system_prompt: str | None = None,
    chat_history: Sequence[Json] | None = None,
    **fields: Any,
) -> Answer:
    """A chat completion in OpenAI's form; with ``stream`` in `generate_config` an iterator over its chunks.

    Args:
        messages: the conversation. A text, as in versions before 0.15, is a deprecated form of `prompt`.
        positional: ``tools``, ``enable_thinking``, ``generate_config``; after a prompt ``system_prompt``,
            ``chat_history``, ``tools``, ``generate_config``.
        enable_thinking: whether a hybrid model thinks before it answers.
        generate_config: further fields of the request, such as ``max_tokens`` and ``temperature``.
        fields: the same as arguments of their own.
    """
    check_further("chat", fields, CHAT)
    named = {
        "tools": tools,
        "enable_thinking": enable_thinking,
        "generate_config": generate_config,
        "prompt": prompt,
        "system_prompt": system_prompt,
        "chat_history": chat_history,
    }
    return _completion("/v1/chat/completions", model_uid, read_chat(messages, positional, named) | fields)


def generate(model_uid: str, /, prompt: str, generate_config: Mapping[str, Any] | None = None, **fields: Any) -> Answer:
    """A completion of `prompt`; with ``stream`` in `generate_config` an iterator over its chunks.

    Args:
        generate_config: further fields of the request, such as ``max_tokens`` and ``temperature``.
        fields: the same as arguments of their own.
    """
    check_further("generate", fields, COMPLETION)
    return _completion("/v1/completions", model_uid, {"prompt": prompt, **(generate_config or {}), **fields})


def create_embedding(model_uid: str, /, input: Any, **kwargs: Any) -> Request[Json]:
    """The embeddings of one text, several texts, or token ids; `kwargs` are further fields of the request."""
    return _post("/v1/embeddings", {**kwargs, "model": model_uid, "input": input})


def convert_ids_to_tokens(model_uid: str, /, input: Any, **kwargs: Any) -> Request[Any]:
    """The tokens of one list of token ids, or of several lists."""
    body = {**kwargs, "model": model_uid, "input": input}
    return Request(method="POST", path="/v1/convert_ids_to_tokens", body=body, read=answers.as_json)


def rerank(
    model_uid: str,
    /,
    documents: Sequence[str | Json],
    query: str | Json,
    top_n: int | None = None,
    max_chunks_per_doc: int | None = None,
    return_documents: bool | None = None,
    return_len: bool | None = None,
    **kwargs: Any,
) -> Request[Json]:
    """The relevance of each document to the query: ``results``, the most relevant first.

    Args:
        top_n: maximum number of results; all by default.
        return_documents: include the text of each document.
        kwargs: further fields of the request.
    """
    optional = {
        "top_n": top_n,
        "max_chunks_per_doc": max_chunks_per_doc,
        "return_documents": return_documents,
        "return_len": return_len,
    }
    fields = {name: value for name, value in optional.items() if value is not None}
    return _post("/v1/rerank", {**kwargs, **fields, "model": model_uid, "documents": list(documents), "query": query})


def _post(path: str, body: Json) -> Request[Json]:
    return Request(method="POST", path=path, body=body, read=answers.as_object, without_timeout=True)


def _completion(path: str, model_uid: str, fields: Json) -> Answer:
    body = {**fields, "model": model_uid}
    if body.get("stream"):
        return StreamRequest(method="POST", path=path, body=body, decoder=answers.CompletionChunks)
    return _post(path, body)
