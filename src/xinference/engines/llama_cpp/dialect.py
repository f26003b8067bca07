"""llama.cpp's dialect: request fields, answers and error texts."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

from xinference.engines.dialect import (
    UNCHANGED,
    Body,
    Dialect,
    EngineError,
    Exchange,
    context_refusal,
    explain_context_size,
    explain_template_error,
    refuse_field,
    rename_field,
    text_as_content,
)
from xinference.engines.llama_cpp import choices
from xinference.engines.llama_cpp.answer_schemas import follow_any_object, follow_format, follow_guided
from xinference.engines.llama_cpp.metrics import METRICS
from xinference.engines.llama_cpp.native_fields import NATIVE
from xinference.engines.llama_cpp.prefill import PrefillCut
from xinference.engines.llama_cpp.schema_forms import wrong_form
from xinference.engines.llama_cpp.vectors import cut_vectors
from xinference.engines.request_placement import ModelStates, StateLimits
from xinference.engines.request_schemas import refused_schema
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import AnthropicMessages, Embeddings, Generation, Request

ENGINE = "llama.cpp"

# -- request fields ---------------------------------------------------------------------------------------------


def choice_as_grammar(body: Body, value: list[str]) -> None:
    """Pass the choices as a grammar. GBNF quotes a string as JSON does."""
    del body["guided_choice"]
    body["grammar"] = "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in value)


def require_one_tool(body: Body, value: Any) -> None:
    """Pass a named tool as the only one, with ``required``: llama.cpp reads a named tool as ``auto``."""
    if not isinstance(value, dict):
        return
    name = (value.get("function") or {}).get("name")
    tools = [tool for tool in body.get("tools") or [] if (tool.get("function") or {}).get("name") == name]
    if not tools:
        raise Refusal(Code.INVALID_REQUEST, f"tool_choice names {name!r}, which is not in tools.", param="tool_choice")
    body["tools"], body["tool_choice"] = tools, "required"


# -- answers ----------------------------------------------------------------------------------------------------


def _exchange(request: Request, uid: str) -> Exchange:
    """The rewrites of llama.cpp's answers whose form differs from the form that clients expect."""
    if isinstance(request, Generation):
        return choices.exchange(request)
    if isinstance(request, AnthropicMessages):
        return _messages_exchange(request)
    if isinstance(request, Embeddings) and request.dimensions:
        return Exchange(answer=partial(cut_vectors, wanted=request.dimensions, uid=uid))
    return UNCHANGED


def _messages_exchange(request: AnthropicMessages) -> Exchange:
    choice = request.tool_choice.name if request.tool_choice is not None else None
    body = partial(only_tool, name=choice) if choice else None
    if request.messages[-1].role == "assistant":
        cut = PrefillCut(body)
        return Exchange(cut.body, lambda whole: name_stop(cut.message(whole)), name_stop)
    named = name_stop if request.stop_sequences else None
    return Exchange(body, named, named) if body or named else UNCHANGED


def only_tool(body: Body, name: str) -> Body:
    """Pass a named tool as the only one: llama.cpp requires a call, but of any tool."""
    return body | {"tools": [tool for tool in body.get("tools") or [] if tool.get("name") == name]}


def name_stop(chunk: bytes) -> bytes:
    """Add the stop reason of an answer that a stop sequence ended: llama.cpp reports only the sequence."""
    ended, stopped = (b'"stop_reason":"%b","stop_sequence":"' % reason for reason in (b"end_turn", b"stop_sequence"))
    return chunk.replace(ended, stopped)


# -- errors -----------------------------------------------------------------------------------------------------

#: The error for an embedding or rerank input that is longer than the batch.
OVER_BATCH = re.compile(r"input \((\d+) tokens\) is too large to process.*?batch size: (\d+)", re.DOTALL)
#: The error for an image or audio input to a model without a projector; its status is 500.
NO_PROJECTOR = re.compile(r"(image|audio|video) input is not supported")
#: The errors for token ids that are not in the vocabulary, and for an input without tokens.
INVALID_TOKENS = "Prompt contains invalid tokens"
NO_TOKENS = "Input content cannot be empty"
#: The error for a conversation that ends with calls of tools.
OPEN_CALLS = "Cannot continue an assistant message that contains tool calls"
#: The error for a part of a message of a type that the server does not read, such as audio_url.
OTHER_PART = "unsupported content[].type"
#: The error for a model without tokens for the middle of a text; its status is 501.
NO_INFILL = "Infill is not supported by this model"
#: The error for log probabilities where calls are parsed; the gateway also streams some whole answers.
NO_LOGPROBS = "logprobs is not supported with tools"
#: The error for a continued message where the last one is not one of the assistant.
NOT_CONTINUED = "Cannot set both add_generation_prompt and continue_final_message"
#: The error for an answer of the model that is no call and has no requested form; its status is 500.
ODD_FORM = "The model produced output that does not match the expected"
#: The C++ library's error for a token id that is not in the vocabulary.
NO_SUCH_TOKEN = re.compile(r"vector::_M_range_check: .* >= this->size\(\) \(which is (\d+)\)")
#: The error for more answers to one request than the server has slots.
TOO_MANY_CHOICES = re.compile(r"Field 'n(?:_cmpl)?': Value must be between 1 <= value <= (\d+)")
#: The error for the value of any other field of its own.
FIELD = re.compile(r"Field '(\w+)': (.*)", re.DOTALL)
#: The error for a grammar, of a schema or a forced call, that does not accept the end of the prompt. The server reads
#: that text with the tokenizer, and one that begins each text with a space makes another text of it.
NO_GRAMMAR = "Failed to initialize samplers"
#: The error for a schema that the server cannot turn into a grammar, such as one with a reference to nothing.
BAD_SCHEMA = re.compile(r"JSON schema (?:error|conversion failed)[^:]*:\s*(.*)", re.DOTALL)
#: The error for a prompt of token ids and a model with a projector.
ONLY_TEXT = "type must be string, but is array"
#: The errors for a value that the server's JSON reader or one of its parsers cannot use; some have the status 500.
WRONG_TYPE = re.compile(r"\[json\.exception\.|Failed to parse (?:messages|tools|tool call)|Unknown reasoning format")
#: The beginnings of the server's other texts about a request. Their status is 500, which is also that of a fault of the
#: server, such as "Compute error.".
ABOUT_REQUEST = re.compile(
    r"(?:got exception: )?(?:Error: )?"
    r"(?:Cannot use|Failed to (?:load|parse|process|tokenize|initialize)|[Uu]n(?:supported|known|expected)|"
    r"[Ii]nvalid(?! input batch)|[Ee]xpected|[Mm]issing|[Nn]o triggers|Only|"
    r"[\w\"'$\[\].]+ (?:must (?:be|have|not)|is not supported))\b"
)


def _explain(error: EngineError) -> Refusal | None:
    return (
        explain_context_size(error)
        or _explain_batch_size(error)
        or _explain_token_id(error)
        or explain_template_error(error)
        or _explain_missing_projector(error)
        or _explain_choices(error)
        or _explain_field(error)
        or _explain_grammar(error)
        or _explain_odd_form(error)
        or _explain_wrong_type(error)
        or _explain_wrong_request(error)
    )


def _explain_batch_size(error: EngineError) -> Refusal | None:
    over = OVER_BATCH.search(error.message)
    if over is None:
        return None
    limit = min(error.context_length or int(over[2]), int(over[2]))
    message = f"This model accepts at most {limit} tokens per input, but the input has {over[1]} tokens. Shorten it."
    return context_refusal(error, message)


def _explain_token_id(error: EngineError) -> Refusal | None:
    size = NO_SUCH_TOKEN.search(error.message)
    if size is None:
        return _explain_prompt(error)
    cause = f"A token id is not in the model's vocabulary, which has {size[1]} tokens."
    return Refusal(Code.INVALID_TOKEN, cause, param=error.prompt_field)


def _explain_prompt(error: EngineError) -> Refusal | None:
    field = error.prompt_field
    if INVALID_TOKENS in error.message:
        return Refusal(Code.INVALID_TOKEN, f"{field}: a token id is not in the model's vocabulary.", param=field)
    if NO_TOKENS in error.message:
        return Refusal(Code.INVALID_REQUEST, f"{field}: an input has no tokens.", param=field)
    if OTHER_PART in error.message:
        cause = f"{field}: llama.cpp does not read content of this type."
        return Refusal(Code.UNSUPPORTED_CONTENT, cause, hint="Send audio as input_audio.", param=field)
    if NO_INFILL in error.message:
        cause = "The model cannot fill in the middle of a text: its tokenizer has no tokens for this."
        return Refusal(Code.UNSUPPORTED_FIELD, cause, hint="Launch a model for code that has them.", param="model")
    if NO_LOGPROBS in error.message:
        cause = "logprobs: llama.cpp reports none in an answer with tools."
        return Refusal(Code.UNSUPPORTED_FIELD, cause, hint="Leave logprobs or tools out.", param="logprobs")
    if NOT_CONTINUED in error.message:
        name = "continue_final_message"
        cause = f"{name}: the last message is not one of the assistant."
        return Refusal(Code.INVALID_REQUEST, cause, hint="Leave it out.", param=name)
    if OPEN_CALLS in error.message:
        cause, hint = "The last message has calls of tools without results.", "Add a message of the role tool for each."
        return Refusal(Code.INVALID_MESSAGES, cause, hint=hint, param=field)
    return None


def _explain_missing_projector(error: EngineError) -> Refusal | None:
    media = NO_PROJECTOR.search(error.message)
    if not media:
        return None
    cause = f"The model has no multimodal projector, so it cannot read the {media[1]} of this request."
    return Refusal(Code.UNSUPPORTED_CONTENT, cause, hint="Send only text.", param=error.prompt_field)


def _explain_odd_form(error: EngineError) -> Refusal | None:
    if ODD_FORM not in error.message:
        return None
    cause = "The model's answer has neither the requested format nor the form of a call."
    return Refusal(Code.ENGINE_ERROR, cause, hint="Send the request again, or raise max_tokens.")


def _explain_choices(error: EngineError) -> Refusal | None:
    choices = TOO_MANY_CHOICES.search(error.message)
    if choices is None:
        return None
    slots = f"{choices[1]} slot{'' if choices[1] == '1' else 's'}"
    cause = f"n: the model has {slots}, and each answer to a request needs one."
    return Refusal(Code.INVALID_REQUEST, cause, hint="Launch it with a larger --n_parallel.", param="n")


def _explain_field(error: EngineError) -> Refusal | None:
    field = FIELD.match(error.message)
    if field is None:
        return None
    cause = f"{field[1]}: {field[2][:1].lower()}{field[2][1:300].strip().rstrip('.')}."
    return Refusal(Code.INVALID_REQUEST, cause, param=field[1])


def _explain_grammar(error: EngineError) -> Refusal | None:
    bad = BAD_SCHEMA.search(error.message)
    if bad is not None:
        return wrong_form(error.request) or refused_schema(error.request, bad[1][:300].strip())
    if NO_GRAMMAR not in error.message:
        return None
    cause = (
        "llama.cpp can't apply this constraint: a grammar that is not valid; or a schema or a forced call of a tool "
        "where the tokenizer reads the end of the chat template's prompt as another text."
    )
    return Refusal(Code.INVALID_CONSTRAINT, cause, hint="Use guided_grammar in GBNF, or launch on another engine.")


def _explain_wrong_type(error: EngineError) -> Refusal | None:
    if ONLY_TEXT in error.message and error.prompt_field == "prompt":
        cause = "prompt: llama.cpp reads no token ids for a model with a multimodal projector."
        return Refusal(Code.UNSUPPORTED_FIELD, cause, hint="Send the prompt as a text.", param="prompt")
    if not WRONG_TYPE.search(error.message):
        return None
    cause = f"The engine cannot read a field of the request: {error.message[:300]}"
    return wrong_form(error.request) or Refusal(Code.INVALID_REQUEST, cause)


def _explain_wrong_request(error: EngineError) -> Refusal | None:
    if error.error.get("type") != "server_error" or not ABOUT_REQUEST.match(error.message):
        return None
    message = error.message.removeprefix("got exception: ")
    return Refusal(Code.INVALID_REQUEST, f"The engine cannot use the request: {message[:300]}")


def _make_states(limits: StateLimits) -> ModelStates:
    # Only servers with such a model load them.
    from xinference.engines.llama_cpp.model_states import LlamaCppStates
    from xinference.engines.llama_cpp.placement import SlotPlacement

    return LlamaCppStates(limits, SlotPlacement)


DIALECT = Dialect(
    engine=ENGINE,
    biases_texts=True,
    fields={
        "text": text_as_content,
        "repetition_penalty": rename_field("repetition_penalty", "repeat_penalty"),
        "stop_token_ids": refuse_field("stop_token_ids", ENGINE, "Pass texts in stop."),
        "truncate_prompt_tokens": refuse_field(
            "truncate_prompt_tokens", ENGINE, "Send shorter texts, or lists of token ids that are truncated already."
        ),
        "suffix": refuse_field("suffix", ENGINE, "Use /infill with input_prefix and input_suffix."),
        "guided_json": follow_guided,
        "guided_json_object": follow_any_object,
        "response_format": follow_format,
        "guided_choice": choice_as_grammar,
        "guided_grammar": rename_field("guided_grammar", "grammar"),
        "guided_regex": refuse_field("guided_regex", ENGINE, "Use guided_grammar in GBNF, or guided_json."),
        "tool_choice": require_one_tool,
    },
    forces_calls=False,
    always_continues=True,
    has_stops_at_start=True,
    computes_in_order=True,
    exchange=_exchange,
    explain=_explain,
    make_states=_make_states,
    native=NATIVE,
    metrics=METRICS,
)
