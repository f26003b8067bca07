"""The dialect of an engine, and the rewrites that several engines share.

A dialect contains the differences between an engine's HTTP API and the API that the gateway serves. The gateway's
processes load the dialects without the engines, so these modules import only the forms in `protocol`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xinference.engines.engine_metrics import NO_METRICS, EngineMetrics
from xinference.engines.native_fields import NativeFields
from xinference.engines.request_placement import MakeStates
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Request, Tokenize

Body = dict[str, Any]
#: Changes a decoded request body in place; the second argument is the field's value.
FieldRewrite = Callable[[Body, Any], None]
BytesRewrite = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Exchange:
    """The rewrites of one request's body and of its answer; None leaves the bytes unchanged."""

    body: Callable[[Body], Body] | None = None
    """Applied to the decoded request body."""
    answer: BytesRewrite | None = None
    """Applied to the body of an answer that is not streamed to the client."""
    events: BytesRewrite | None = None
    """Applied to complete server-sent events of an answer that is streamed to the client."""
    choices: int = 1
    """The number of choices of the answer, if the engine computes no more of them than it has slots."""


UNCHANGED = Exchange()


@dataclass(frozen=True, slots=True)
class EngineError:
    """An engine's error answer, with the gateway's facts of the request."""

    error: Mapping[str, Any]
    """The error object, empty if the answer has none."""
    message: str
    """The error's text."""
    prompt_field: str
    """The request's field with the prompt: ``messages``, ``prompt`` or ``input``."""
    context_length: int | None
    """The model's context in tokens; None: not known, the engine's own number is used."""
    request: bytes = b""
    """The request that the engine got; empty if its fields have other names than those that the client has sent."""


#: An engine that reads the fields of the APIs only.
NO_NATIVE_FIELDS = NativeFields()


def _leave_unchanged(request: Request, uid: str) -> Exchange:
    return UNCHANGED


def _explain_nothing(error: EngineError) -> Refusal | None:
    return None


@dataclass(frozen=True)
class Dialect:
    """The differences between one engine's HTTP API and the API that the gateway serves.

    The defaults describe an engine without differences.
    """

    engine: str
    """The engine's display name."""
    fields: Mapping[str, FieldRewrite] = field(default_factory=dict)
    """Request field -> its rewrite. A field that is not here reaches the engine under its own name."""
    forces_calls: bool = True
    """A call that a request forces follows the function's schema, whatever the model's chat template writes."""
    biases_texts: bool = False
    """A key of `logit_bias` may be a text: the bias is that of each of its tokens."""
    always_continues: bool = False
    """The engine continues a last message of the assistant, whatever the fields of the chat say."""
    has_stops_at_start: bool = False
    """The engine gets the model's stop texts when it starts, so a request does not need them."""
    computes_in_order: bool = False
    """The engine computes the inputs of all requests in the order of their arrival."""
    computes_prompts_in_order: bool = False
    """The same for the prompts of completions only: texts and documents are computed in groups."""
    exchange: Callable[[Request, str], Exchange] = _leave_unchanged
    """Returns the rewrites that a request to the model of this uid and its answer need.

    Raises:
        Refusal: 400, the engine cannot serve a field of the request.
    """
    explain: Callable[[EngineError], Refusal | None] = _explain_nothing
    """Returns the refusal for an error whose text is specific to this engine; None for any other error."""
    completion_tokens: int | None = None
    """Number of tokens of a completion whose request names none; None: up to the end of the context."""
    make_states: MakeStates | None = None
    """Makes the saved states of a model's prompts; None: the engine has none that others can use."""
    priority_header: bytes | None = None
    """The header with the priority of a request: below 0 is high, above 0 is low. None: the engine has none."""
    has_priority_field: bool = False
    """Chats and completions may have the same number in the field `priority`."""
    native: NativeFields = NO_NATIVE_FIELDS
    """The fields that the engine reads in addition to those of the APIs."""
    metrics: EngineMetrics = NO_METRICS
    """How the engine reports its own metrics."""


# -- request fields ---------------------------------------------------------------------------------------------


def rename_field(old: str, new: str) -> FieldRewrite:
    """Pass the value under the name `new`."""

    def rewrite(body: Body, value: Any) -> None:
        body[new] = body.pop(old)

    return rewrite


def refuse_field(name: str, engine: str, hint: str) -> FieldRewrite:
    """Refuse a value of this field; an empty value is dropped, because it has no effect."""

    def rewrite(body: Body, value: Any) -> None:
        if value or value == 0:
            raise Refusal(Code.UNSUPPORTED_FIELD, f"{engine} has no {name}.", hint=hint, param=name)
        del body[name]

    return rewrite


def nest_field(group: str, old: str, new: str) -> FieldRewrite:
    """Pass the value as the member `new` of the object `group`."""

    def rewrite(body: Body, value: Any) -> None:
        body[group] = {**(body.get(group) or {}), new: parse_schema(old, body.pop(old))}

    return rewrite


def rename_schema(new: str) -> FieldRewrite:
    """Pass a JSON schema under the name `new`."""

    def rewrite(body: Body, value: Any) -> None:
        body[new] = parse_schema("guided_json", body.pop("guided_json"))

    return rewrite


# -- texts to tokenize -------------------------------------------------------------------------------------------


def text_as_content(body: Body, request: Tokenize) -> None:
    """Pass a text in vLLM's form in llama.cpp's, whose default adds no special tokens."""
    if body.get("content") is None:
        body["content"] = _prompt(body, request)
        body["add_special"] = request.add_special_tokens is not False
    if request.return_token_strs:
        body["with_pieces"] = True
    for name in ("prompt", "add_special_tokens", "return_token_strs"):
        body.pop(name, None)


def text_as_prompt(body: Body, request: Tokenize) -> None:
    """Pass a text in llama.cpp's form in vLLM's, whose default adds special tokens."""
    if request.content is None:
        if request.messages is None:
            _prompt(body, request)
        return
    if not isinstance(request.content, str):
        cause = "content: this engine converts one text to tokens, not a list."
        raise Refusal(Code.UNSUPPORTED_FIELD, cause, param="content")
    body["prompt"] = request.content
    body["add_special_tokens"] = bool(request.add_special)
    if request.with_pieces:
        body["return_token_strs"] = True
    for name in ("content", "add_special", "with_pieces", "parse_special"):
        body.pop(name, None)


def _prompt(body: Body, request: Tokenize) -> str:
    if request.prompt is not None:
        return request.prompt
    if request.messages is not None:
        raise Refusal(
            Code.UNSUPPORTED_FIELD,
            "messages: this engine converts only texts to tokens.",
            hint="POST /apply-template returns the text of messages; /v1/messages/count_tokens counts their tokens.",
            param="messages",
        )
    raise Refusal(Code.INVALID_REQUEST, "prompt is required.", param="prompt")


def parse_schema(name: str, value: Any) -> Any:
    """Decode a schema that is given as JSON in a string."""
    if name != "guided_json" or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise Refusal(Code.INVALID_REQUEST, f"{name} is a string that is not JSON.", param=name) from None


# -- errors -----------------------------------------------------------------------------------------------------

#: The text that llama.cpp writes before the message of a chat template's `raise_exception`.
TEMPLATE_ERROR = "Jinja Exception: "


def context_refusal(error: EngineError, message: str) -> Refusal:
    """The refusal of a prompt that is longer than the context."""
    return Refusal(Code.CONTEXT_LENGTH_EXCEEDED, message, param=error.prompt_field)


def prompt_refusal(error: EngineError, limit: int, tokens: int | str) -> Refusal:
    """The refusal of a prompt of `tokens` tokens for a context of `limit` tokens."""
    message = f"This model's maximum context length is {limit} tokens, but the prompt has {tokens} tokens. Shorten it."
    return context_refusal(error, message)


def explain_context_size(error: EngineError) -> Refusal | None:
    """Read llama.cpp's error type for a prompt that is too long; the Transformers server answers in the same form."""
    if error.error.get("type") != "exceed_context_size_error":
        return None
    limit, tokens = error.context_length or error.error.get("n_ctx"), error.error.get("n_prompt_tokens")
    if not isinstance(limit, int) or not isinstance(tokens, int):
        return context_refusal(error, error.message)
    return prompt_refusal(error, limit, tokens)


def explain_template_error(error: EngineError) -> Refusal | None:
    """Read a chat template's own message from llama.cpp's error; the Transformers server answers in the same form."""
    if TEMPLATE_ERROR not in error.message:
        return None
    reason = error.message.rpartition(TEMPLATE_ERROR)[2].strip()
    cause = f"The model's chat template refuses the request: {reason}"
    return Refusal(Code.INVALID_MESSAGES, cause, param=error.prompt_field)
