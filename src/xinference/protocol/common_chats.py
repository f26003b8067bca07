"""The form of chats that every engine reads as they are, which most chats have.

Such a chat has no null, its texts, images, tools and calls are complete, and no field of it is converted for an engine
but those that `gateway.common_rewrites` replaces in its bytes. So it is decoded once, by the form of this module, and
its bytes are passed on.

A chat that also has fields of engines, such as samplers, is decoded by a form with these fields. Each engine reads some
of them; `gateway.engine_requests` checks the others.
"""

# Each form narrows fields of its base, which mypy reports as a wrong override of a mutable field.
# mypy: disable-error-code="assignment"

from __future__ import annotations

import contextlib
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct, UnsetType

from xinference.protocol import exact_requests
from xinference.protocol.field_types import (
    Choices,
    Effort,
    Name,
    Penalty,
    Positive,
    Repetition,
    Seed,
    Share,
    Temperature,
    TokenId,
    TopK,
)
from xinference.protocol.known_texts import KNOWN_ARGUMENTS, KNOWN_FORMATS, KNOWN_TOOLS
from xinference.protocol.message_forms import DataUri

#: The type of a field that a common chat does not have.
Absent = UnsetType
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Scalar = str | int | float | bool
#: `gateway.token_biases` checks other keys and values.
TokenBiases = Annotated[
    dict[Annotated[str, Meta(pattern="^[0-9]{1,9}$")], Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)
]


#: The values of fields of engines: no address is in them. The table of the engine has their types and bounds. With a
#: union of more types than these, msgspec 0.22 ends the process when the decoder is deleted.
NativeText = Annotated[str, Meta(max_length=1024, pattern=r"^[^:/\\]*$")]
NativeNumber = bool | int | float | UnsetType
#: The fields of engines that are decoded by the form of most chats, because many clients send them.
USUAL_NATIVE = ("typical_p", "skip_special_tokens")
#: Further fields of engines with a simple value, of which none limits the number of tokens or of answers. A test holds
#: them to the tables of the engines.
_NUMBERS = (
    *("adaptive_decay", "adaptive_target", "add_generation_prompt", "add_special", "add_special_tokens"),
    *("cache_prompt", "dry_allowed_length", "dry_base", "dry_multiplier", "dry_penalty_last_n", "dynatemp_exponent"),
    *("dynatemp_range", "echo", "include_reasoning", "include_stop_str_in_output", "length_penalty", "min_keep"),
    *("min_tokens", "mirostat", "mirostat_eta", "mirostat_tau", "n_cache_reuse", "n_discard", "n_indent", "n_keep"),
    *("n_probs", "no_stop_trim", "normalize", "normalize_embeddings", "parse_special", "post_sampling_probs"),
    *("prompt_logprobs", "reasoning_budget_tokens", "repeat_last_n", "repeat_penalty"),
    *("return_cached_tokens_details", "return_progress", "return_prompt_token_ids", "return_sparse"),
    *("return_token_ids", "return_token_strs", "return_tokens", "return_tokens_as_token_ids", "separate_reasoning"),
    *("spaces_between_special_tokens", "sse_ping_interval", "stream_interval", "stream_reasoning"),
    *("t_max_predict_ms", "thinking_budget_tokens", "thinking_token_budget", "timings_per_token", "top_n_sigma"),
    *("truncate_prompt_tokens", "use_activation", "use_beam_search", "with_pieces", "xtc_probability"),
    "xtc_threshold",
)
_TEXTS = (
    *("cache_salt", "continue_final_message", "instruction", "prompt_name", "reasoning_budget_message"),
    *("reasoning_format", "truncation_side"),
)
_LISTS_OF_TEXTS = ("bad_words", "dry_sequence_breakers", "preserved_tokens", "response_fields", "samplers")
_LISTS_OF_IDS = ("allowed_token_ids", "logprob_token_ids")
NATIVE = (*USUAL_NATIVE, *_NUMBERS, *_TEXTS, *_LISTS_OF_TEXTS, *_LISTS_OF_IDS)
TokenIds = Annotated[list[TokenId], Meta(max_length=1024)]


class Link(Struct, forbid_unknown_fields=True, gc=False):
    url: DataUri
    detail: str = ""


class TextPart(Struct, tag_field="type", tag="text", forbid_unknown_fields=True, gc=False):
    text: str


class ImagePart(Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True, gc=False):
    image_url: Link


Parts = Annotated[list[TextPart | ImagePart], Meta(min_length=1)]


class CalledFunction(Struct, forbid_unknown_fields=True, gc=False):
    name: Name
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True, gc=False):
    function: CalledFunction
    type: Literal["function"]
    id: str = ""
    index: int = 0


class Message(Struct, forbid_unknown_fields=True, gc=False):
    """A message of a chat without calls. It has few fields, because each field costs time in each message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Parts
    tool_call_id: str = ""
    name: str = ""


class MessageOrCall(Message, forbid_unknown_fields=True, gc=False):
    """A message of a conversation with calls; its content may be null only beside calls."""

    content: str | Parts | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1)] = None
    reasoning_content: str = ""


class StreamOptions(exact_requests.StreamOptions, forbid_unknown_fields=True):
    include_usage: bool = None
    include_obfuscation: bool = None


class CommonChat(exact_requests.Chat, kw_only=True, forbid_unknown_fields=True):
    has_native: ClassVar[bool] = False
    """Whether the form has all fields of `NATIVE`, and not only those of `USUAL_NATIVE`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool = None
    request_id: Annotated[str, Meta(max_length=200)] = None
    user: str = None
    safety_identifier: str = None
    metadata: dict[str, Any] = None
    service_tier: str = None
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = None
    temperature: Temperature = None
    top_p: Share = None
    max_tokens: Positive = None
    max_completion_tokens: Positive = None
    n: Choices = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    logit_bias: TokenBiases = None
    stop: Text | Annotated[list[Text], Meta(max_length=64)] = None
    seed: Seed = None
    stream_options: StreamOptions = None
    top_k: TopK = None
    min_p: Share = None
    ignore_eos: bool = None
    logprobs: bool = None
    # Checked by `known_texts`.
    tools: msgspec.Raw = None
    response_format: msgspec.Raw | UnsetType = msgspec.UNSET
    chat_template_kwargs: msgspec.Raw = None
    enable_thinking: bool = None
    tool_choice: Literal["none", "auto", "required"] = None
    parallel_tool_calls: bool = None
    reasoning_effort: Effort = None
    prompt_cache_key: Scalar = None
    prompt_cache_retention: Scalar = None
    store: Scalar = None
    verbosity: Scalar = None
    # Fields of engines.
    typical_p: NativeNumber = msgspec.UNSET
    skip_special_tokens: NativeNumber = msgspec.UNSET
    # They are checked or converted in ways of their own.
    repetition_penalty: Absent = None
    stop_token_ids: Absent = None
    lora_name: Absent = None
    guided_json: Absent = msgspec.UNSET
    guided_regex: Absent = None
    guided_choice: Absent = None
    guided_grammar: Absent = None
    guided_json_object: Absent = None
    top_logprobs: Absent = None
    audio: Absent = None
    function_call: Absent = None
    functions: Absent = None
    modalities: Absent = None
    prediction: Absent = None
    web_search_options: Absent = None


class CommonConversation(CommonChat, kw_only=True, forbid_unknown_fields=True):
    """A common chat with calls in its messages."""

    messages: Annotated[list[MessageOrCall], Meta(min_length=1)]


def _with_native(form: type[CommonChat]) -> type[CommonChat]:
    """The form with all fields of engines, and with those that some engines get under another name."""
    kinds: tuple[tuple[tuple[str, ...], Any], ...] = (
        (_NUMBERS, NativeNumber),
        (_TEXTS, bool | NativeText | UnsetType),
        (_LISTS_OF_TEXTS, list[NativeText] | UnsetType),
        (_LISTS_OF_IDS, list[int] | UnsetType),
    )
    fields: list[tuple[str, Any, Any]] = [(name, kind, msgspec.UNSET) for names, kind in kinds for name in names]
    fields += [("repetition_penalty", Repetition, None), ("stop_token_ids", TokenIds, None)]
    made: Any = msgspec.defstruct(
        f"{form.__name__}OfEngine", fields, bases=(form,), kw_only=True, forbid_unknown_fields=True
    )
    made.has_native = True
    with_native: type[CommonChat] = made
    return with_native


for _form in (CommonChat, CommonConversation):
    _form.has_further_fields = False
    _form.is_common = True

#: Errors of the form of a `CommonChat` for messages of a `CommonConversation`.
_FURTHER = (
    "Object contains unknown field `tool_calls`",
    "Object contains unknown field `reasoning_content`",
    "Object missing required field `content`",
)

#: The name of the calls of a message, which is a field of a `CommonConversation` only.
_CALLS = b'"tool_calls"'

#: What an error says of a field that only the forms of `_with_native` take.
_NATIVE_ERRORS = frozenset(
    {
        *(f"Object contains unknown field `{name}`" for name in NATIVE),
        *(f"Expected `msgspec.UnsetType`, got `{kind}` - at `$.repetition_penalty`" for kind in ("float", "int")),
        "Expected `msgspec.UnsetType`, got `list` - at `$.stop_token_ids`",
    }
)

_usual_native, _all_native = attrgetter(*USUAL_NATIVE), attrgetter(*NATIVE)
_decode = msgspec.json.Decoder(CommonChat).decode
_decode_native = msgspec.json.Decoder(_with_native(CommonChat)).decode
_decode_conversation = msgspec.json.Decoder(CommonConversation).decode
_decode_native_conversation = msgspec.json.Decoder(_with_native(CommonConversation)).decode
#: Decodes all of it: an engine must be able to read what the forms skip, such as the number 1e999.
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def common_chat(body: bytes) -> CommonChat | None:
    """The chat of a body; None: the body has another form.

    Raises:
        msgspec.ValidationError: the same.
        msgspec.DecodeError: the body is not JSON.
    """
    chat: CommonChat | None
    if _CALLS in body:
        chat = _conversation(body)
    else:
        try:
            chat = _decode(body)
        except msgspec.ValidationError as error:
            what = str(error)
            if what in _NATIVE_ERRORS:
                with contextlib.suppress(msgspec.ValidationError):
                    return _decodable(_decode_native(body))
            if not _is_about_call(what):
                raise
            chat = _conversation(body)
    return _decodable(chat)


def _decodable(chat: CommonChat | None) -> CommonChat | None:
    """The chat; None: there is none, or its bytes cannot be passed on."""
    if chat is None:
        return None
    messages = chat.messages
    if len(messages) > 1 and messages[-1].role == "assistant" == messages[-2].role:
        return None  # they begin one answer, and are joined
    if chat.response_format is not msgspec.UNSET and not KNOWN_FORMATS.has(chat.response_format):
        return None
    if chat.chat_template_kwargs is not None and not KNOWN_ARGUMENTS.has(chat.chat_template_kwargs):
        return None
    if chat.tools is None:
        return chat if chat.tool_choice is None else None
    return chat if KNOWN_TOOLS.has(chat.tools) else None


def _is_about_call(error: str) -> bool:
    """Whether the error is about a message that may be one of a `CommonConversation`."""
    return error.endswith(".content`") or error.startswith(_FURTHER)


def _conversation(body: bytes) -> CommonConversation | None:
    try:
        chat = _decode_conversation(body)
    except msgspec.ValidationError as error:
        if str(error) not in _NATIVE_ERRORS:
            return None
        try:
            chat = _decode_native_conversation(body)
        except msgspec.ValidationError:
            return None
    for message in chat.messages:
        if message.tool_calls is not None:
            if not _have_objects(message.tool_calls):
                return None
        elif message.content is None:
            return None
    return chat


def _have_objects(calls: list[ToolCall]) -> bool:
    """Whether the arguments of each call are the JSON of an object: a model may have written anything."""
    try:
        for call in calls:
            _decode_object(call.function.arguments)
    except (ValueError, RecursionError):
        return False
    return True


def native_fields(chat: CommonChat) -> dict[str, Any]:
    """The fields of engines that a common chat has."""
    names, values = (NATIVE, _all_native(chat)) if chat.has_native else (USUAL_NATIVE, _usual_native(chat))
    return {name: value for name, value in zip(names, values, strict=True) if value is not msgspec.UNSET}
