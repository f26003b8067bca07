"""What clients and agents really send, on each engine: it is answered, or refused by the name of the field.

Each kind has several examples. The stand-ins record what reaches an engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import ANTHROPIC
from tests.gateway.recording import Recording, recording_gateway

pytestmark = pytest.mark.process

ENGINES = ("llama.cpp", "Transformers", "vLLM", "SGLang")
CHATS, TEXTS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
USER: dict[str, Any] = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
BASES: dict[str, dict[str, Any]] = {
    CHATS: {"model": "m", "messages": [USER]},
    TEXTS: {"model": "m", "prompt": "a"},
    RESPONSES: {"model": "m", "input": "a"},
    MESSAGES: {"model": "m", "messages": [USER], "max_tokens": 5},
    "/v1/embeddings": {"model": "m", "input": "a"},
    "/v1/rerank": {"model": "m", "query": "q", "documents": ["d"]},
}
#: Items of the history of a response, in the forms of Codex and others.
ITEMS: list[list[dict[str, Any]]] = [
    [{"type": "reasoning", "id": "r", "summary": []}],
    [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}], "encrypted_content": "x"}],
    [{"type": "reasoning", "id": "r", "content": [{"type": "reasoning_text", "text": "t"}], "summary": []}],
    [{"role": "assistant", "content": "plain"}],
    [{"role": "assistant", "content": [{"type": "output_text", "text": "t", "annotations": []}], "status": "failed"}],
    [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
    [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "t"}]}],
    [{"type": "custom_tool_call", "call_id": "c", "name": "x", "input": "ls"},
     {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"}],
    [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"a\":"},
     {"type": "function_call_output", "call_id": "c", "output": "ok"}],
    [{"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
     {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]}],
    [{"type": "local_shell_call", "call_id": "c", "id": "l", "status": "completed",
      "action": {"type": "exec", "command": ["ls"], "env": {}}},
     {"type": "local_shell_call_output", "id": "c", "call_id": "c", "output": "ok"}],
    [{"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}}],
    [{"type": "file_search_call", "id": "w", "status": "completed", "queries": []}],
    [{"type": "image_generation_call", "id": "i", "status": "completed", "result": None}],
    [{"type": "mcp_call", "id": "m", "name": "a", "arguments": "{}", "server_label": "s", "output": "o"}],
    [{"type": "code_interpreter_call", "id": "c", "code": "1", "container_id": "x", "outputs": []}],
]  # fmt: skip
#: Path and further fields of requests that are answered.
ANSWERED: list[tuple[str, dict[str, Any]]] = [
    *((RESPONSES, {"input": [USER, *items, USER]}) for items in ITEMS),
    (RESPONSES, {"tools": None, "tool_choice": None, "text": None, "reasoning": None, "instructions": None}),
    (RESPONSES, {"include": ["reasoning.encrypted_content"], "store": False, "prompt_cache_key": "k"}),
    # null is absent
    (CHATS, {"messages": [USER | {"name": None}]}),
    (CHATS, {"messages": [USER, {"role": "assistant", "content": "a", "reasoning_content": None, "tool_calls": None,
        "refusal": None, "audio": None, "function_call": None, "annotations": None}, USER]}),
    (CHATS, {"messages": [USER | {"tool_call_id": None}]}),
    (CHATS, {"tools": [{"type": "function", "function": {"name": "f", "description": None, "parameters": None,
        "strict": None}}]}),
    (CHATS, dict.fromkeys(("temperature", "top_p", "n", "stop", "stream", "stream_options", "presence_penalty", "seed",
        "logit_bias", "user", "tools", "tool_choice", "response_format", "logprobs", "max_tokens", "functions"))),
    ("/v1/embeddings", {"encoding_format": None, "dimensions": None, "user": None}),
    (MESSAGES, dict.fromkeys(("system", "tools", "tool_choice", "stop_sequences", "thinking", "metadata", "top_k"))),
    # a model's own bad calls, sent back
    *((CHATS, {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"}]})
      for arguments in ("", "{\"a\":", "nonsense", "[1]", "null", "\"text\"")),
    # values of empty form fields
    *((CHATS, {"stop": stop}) for stop in ("", [""], ["", ""], [])),
    (TEXTS, {"stop": ""}),
    (MESSAGES, {"stop_sequences": [""]}),
    (CHATS, {"tools": []}),
    (CHATS, {"top_logprobs": 0}),
    (CHATS, {"top_logprobs": 0, "logprobs": False}),
    # older and newer forms
    (CHATS, {"functions": [{"name": "f", "parameters": {"type": "object"}}], "function_call": "auto"}),
    (CHATS, {"functions": [{"name": "f"}], "function_call": {"name": "f"}}),
    (CHATS, {"functions": [{"name": "f"}], "function_call": "none"}),
    (CHATS, {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
        {"type": "function", "function": {"name": "f"}}]}}}),
    (CHATS, {"messages": [USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    (CHATS, {"messages": [USER | {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}),
    (CHATS, {"messages": [USER, {"role": "assistant", "content": None, "refusal": "no"}, USER]}),
    (MESSAGES, {"messages": [USER | {"content": [{"type": "document", "title": "T", "source": {"type": "text",
        "media_type": "text/plain", "data": "https://a.b/c: x."}}, {"type": "text", "text": "a"}]}]}),
    (RESPONSES, {"reasoning": {"effort": "max"}}),
    (TEXTS, {"best_of": 1}),
    (TEXTS, {"n": 2, "best_of": 2}),
    (TEXTS, {"suffix": ""}),
    (MESSAGES, {"messages": [USER, {"role": "assistant", "content": "Hello, my"}]}),
    (CHATS, {"think": True, "do_sample": True, "skip_special_tokens": True, "images": [], "context": None}),
    (CHATS, {"guided_json": {"type": "object"}, "response_format": {"type": "text"}, "guided_json_object": False}),
    (CHATS, {"messages": [USER | {"images": [], "attachments": None}]}),
    (TEXTS, {"raw": True}),
    ("/v1/embeddings", {"normalized": True, "embd_normalize": 2, "input": [{"text": "a", "image": None}]}),
    ("/v1/embeddings", {"modality": "text", "output_dtype": "float", "embedding_type": "float", "task": None}),
    ("/v1/embeddings", {"prefix": "", "instruction": "", "drop_params": True, "user": "u", "model_uid": "m"}),
    ("/v1/rerank", {"rank_fields": ["text"], "raw_scores": False, "max_chunks_per_doc": 10, "top_n": 200}),
    *(("/v1/rerank", {"return_documents": switch, "return_len": switch}) for switch in ("true", "1", 1, "no", False)),
]  # fmt: skip
#: Path, further fields, and the field that the refusal names.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (RESPONSES, {"background": True}, "background"),
    (RESPONSES, {"conversation": "c"}, "conversation"),
    (RESPONSES, {"conversation": {"id": "c"}}, "conversation"),
    (RESPONSES, {"prompt": {"id": "p"}}, "prompt"),
    (RESPONSES, {"n": 2}, "n"),
    (RESPONSES, {"functions": [{"name": "f"}]}, "functions"),
    (RESPONSES, {"messages": [USER]}, "messages"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    (RESPONSES, {"text": {"format": {"type": "xml"}}}, "text.format.type"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "nowhere"}, USER]}, "input[0].id"),
    (CHATS, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (CHATS, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
    (CHATS, {"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    (CHATS, {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    (CHATS, {"tools": [{"type": "function", "name": "f"}]}, "tools[0].function"),
    (CHATS, {"tool_choice": "required"}, "tool_choice"),
    (CHATS, {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    (CHATS, {"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
    (CHATS, {"functions": [{"name": "f"}, {"description": "d"}]}, "functions[1].name"),
    (CHATS, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (CHATS, {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
     "response_format.json_schema.schema"),
    (CHATS, {"response_format": {"type": "xml"}}, "response_format.type"),
    *((CHATS, {"max_tokens": number}, "max_tokens") for number in (2**31, 2**32 + 8, 2**63, 0, -1)),
    (CHATS, {"seed": 2**64}, "seed"),
    (CHATS, {"n": 129}, "n"),
    (CHATS, {"logit_bias": {"5": 101}}, "logit_bias[...]"),
    (TEXTS, {"logit_bias": {"5": -100.5}}, "logit_bias[...]"),
    *((path, {"logit_bias": {key: 5}}, "logit_bias") for path in (CHATS, TEXTS)
      for key in ("-1", "+1", " 5", "5 ", "", "2147483648", "99999999999")),
    (CHATS, {"logit_bias": {"5": True}}, "logit_bias"),
    (CHATS, {"reasoning_effort": "much"}, "reasoning_effort"),
    (TEXTS, {"best_of": 3}, "best_of"),
    (TEXTS, {"best_of": 3, "n": 2}, "best_of"),
    (TEXTS, {"prompt": ["a", [5]]}, "prompt"),
    (TEXTS, {"prompt": [[]]}, "prompt"),
    (TEXTS, {"prompt": [[5], []]}, "prompt"),
    *(("/v1/embeddings", fields, next(iter(fields))) for fields in (
        {"input_type": "search_query"}, {"task": "retrieval.query"}, {"prefix": "query: "}, {"late_chunking": True},
        {"embedding_type": "binary"}, {"output_dimension": 8}, {"output_dtype": "int8"}, {"modality": "image"})),
    *(("/v1/rerank", fields, next(iter(fields))) for fields in (
        {"top_k": 1}, {"rank_fields": ["title", "text"]}, {"raw_scores": True})),
    ("/v1/embeddings", {"input": ["a", 1]}, "input"),
    ("/v1/embeddings", {"input": [[1], "a"]}, "input"),
    ("/v1/embeddings", {"input": [[]]}, "input"),
    (CHATS, {"web_search_options": {}}, "web_search_options"),
    (CHATS, {"moderation": {"model": "m"}}, "moderation"),
    (CHATS, {"mcp_servers": [{"type": "url", "url": "https://a.b/c"}]}, "mcp_servers"),
    (CHATS, {"messages": [USER, {"role": "assistant", "audio": {"id": "a"}}, USER]}, "messages[1].audio"),
    *((CHATS, {"repetition_penalty": penalty}, "repetition_penalty") for penalty in (0, 1e-300, 1e38)),
    (RESPONSES, {"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
    (RESPONSES, {"tools": [FUNCTION], "tool_choice": {}}, "tool_choice.type"),
    (CHATS, {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}, "modalities"),
    # fields of other servers and paths without which the answer is another one
    *((CHATS, fields, next(iter(fields))) for fields in (
        {"extra_body": {"top_k": 5}}, {"images": ["AAAA"]}, {"prompt": "p"}, {"input": "p"}, {"raw": True},
        {"template": "t"}, {"context": [1]}, {"plugins": [{"id": "web"}]}, {"do_sample": False}, {"top_a": 0.5})),
    *((TEXTS, fields, next(iter(fields))) for fields in (
        {"messages": [USER]}, {"input": "p"}, {"extra_body": {"top_k": 5}}, {"images": ["AAAA"]})),
    *(("/v1/embeddings", fields, next(iter(fields))) for fields in (
        {"extra_body": {"dimensions": 3}}, {"pooling": "cls"}, {"normalized": False}, {"embd_normalize": -1},
        {"images": ["AAAA"]}, {"messages": [USER]})),
    *(("/v1/rerank", fields, next(iter(fields))) for fields in ({"extra_body": {"top_n": 1}}, {"return_text": True})),
    ("/v1/embeddings", {"input": [{"text": "a", "image": "data:image/png;base64,AAAA"}]}, "input[0].image"),
    ("/v1/rerank", {"documents": ["d", {"text": "a", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
     "documents[1].image_url"),
    (CHATS, {"guided_json": {"type": "object"}, "response_format": {"type": "json_object"}}, "guided_json"),
    (CHATS, {"guided_json": {"type": "object"}, "guided_choice": ["a"]}, "guided_choice"),
    (TEXTS, {"guided_json_object": True, "guided_json": {}}, "guided_json_object"),
    (CHATS, {"think": "loudly"}, "think"),
    (RESPONSES, {"input": [USER | {"images": ["AAAA"]}]}, "input[0].images"),
    (RESPONSES, {"text": {"format": "json"}}, "text.format"),
    *((CHATS, {"messages": [{"role": "system", "content": "a"}, USER | {name: ["AAAA"]}]}, f"messages[1].{name}")
      for name in ("images", "attachments")),
    (TEXTS, {"top_logprobs": 2}, "top_logprobs"),
    *((CHATS, {"chat_template_kwargs": {name: []}}, f"chat_template_kwargs.{name}") for name in ("messages", "tools")),
    (CHATS, {"chat_template_kwargs": '{"messages": []}', "enable_thinking": True}, "chat_template_kwargs.messages"),
    (CHATS, {"function_call": {"name": "f"}}, "function_call"),
    (CHATS, {"tools": [FUNCTION], "tool_choice": {"type": "any"}}, "tool_choice.type"),
    # content that no role of a message has: some engines pass over it
    *((MESSAGES, {"messages": [{"role": role, "content": [part]}]}, "messages[0].content[0].type") for role, part in (
        ("user", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        ("user", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        ("user", {"type": "thinking", "thinking": "t", "signature": "s"}),
        ("user", {"type": "tool_use", "id": "c", "name": "f", "input": {}}),
        ("assistant", {"type": "tool_result", "tool_use_id": "c", "content": "r"}),
        ("assistant", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
        ("system", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}))),
    (MESSAGES, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    *((MESSAGES, {"messages": [{"role": role, "content": [part]}]}, f"messages[0].content[0].{name}")
      for role, part, name in (
        ("user", {"type": "tool_result", "content": "r"}, "tool_use_id"),
        ("assistant", {"type": "tool_use", "name": "f", "input": {}}, "id"),
        ("assistant", {"type": "thinking", "signature": "s"}, "thinking"))),
    (MESSAGES, {"messages": [USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f",
        "input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}]}]},
     "messages[2].content[0].content[0].type"),
    *((MESSAGES, fields, next(iter(fields))) for fields in (
        {"logprobs": True}, {"max_completion_tokens": 5}, {"max_tokens_to_sample": 5}, {"prompt": "p"},
        {"system_prompt": "s"})),
]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_clients_send_is_answered_and_reaches_the_engine_without_null(engine: str, tmp_path: Path) -> None:
    wrong = []
    async with recording_gateway(engine, tmp_path) as at:
        for path, fields in ANSWERED:
            if problem := await unanswered(at, path, BASES[path] | fields):
                wrong.append((path, fields, problem))
    assert wrong == [], "\n".join(map(str, wrong))


async def unanswered(at: Recording, path: str, body: dict[str, Any]) -> str | None:
    """What is wrong with the answer to a request, or with what reached the engine; None: nothing."""
    status, answer, _ = await at.served.post(path, body, headers=ANTHROPIC)
    recorded = at.record.take()
    if status != 200:
        return f"{status}: {answer}"
    if len(recorded) != 1:
        return f"{len(recorded)} requests"
    return f"null: {recorded[0].json}" if has_null(recorded[0].json) else None


def has_null(value: Any) -> bool:
    """Whether a field is null; the content of a message with calls may be."""
    if isinstance(value, dict):
        kept = {"content"} if "tool_calls" in value else set()
        return any((each is None and name not in kept) or has_null(each) for name, each in value.items())
    return isinstance(value, list) and any(map(has_null, value))


def named_field(answer: dict[str, Any]) -> str | None:
    """The field that an error names; Anthropic's form has it at the beginning of its text only."""
    error = answer.get("error") or {}
    return error["param"] if "param" in error else str(error.get("message")).split(":")[0].removesuffix(" is required.")


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_cannot_be_served_is_refused_by_its_name(engine: str, tmp_path: Path) -> None:
    wrong = []
    async with recording_gateway(engine, tmp_path) as at:
        for path, fields, param in REFUSED:
            status, answer, _ = await at.served.post(path, BASES[path] | fields, headers=ANTHROPIC)
            named = named_field(answer)
            if (status, named) != (400, param) or at.record.take():
                wrong.append((path, fields, status, named, answer))
    assert wrong == [], "\n".join(map(str, wrong))
