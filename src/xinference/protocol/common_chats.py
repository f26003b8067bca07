"""The form of chats that every engine reads as they are, which most chats have.

Such a chat has no null, its texts, images, tools and calls are complete, and no field of it is converted for an engine.
So it is decoded once, by the form of this module, and its bytes are passed on.
"""

# Each form narrows fields of its base, which mypy reports as a wrong override of a mutable field.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, UnsetType

from xinference.protocol import exact_requests
from xinference.protocol.constraint_limits import MAX_ALTERNATIVES, MAX_BYTES
from xinference.protocol.exact_requests import PlainSchema
from xinference.protocol.field_types import (
    Choices,
    Effort,
    Name,
    Penalty,
    Positive,
    Seed,
    Share,
    Temperature,
    TopK,
)
from xinference.protocol.message_forms import DataUri

#: The type of a field that a common chat does not have.
Absent = UnsetType
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Scalar = str | int | float | bool
#: `gateway.token_biases` checks other keys and values.
TokenBiases = Annotated[
    dict[Annotated[str, Meta(pattern="^[0-9]{1,9}$")], Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)
]


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


class Function(Struct, forbid_unknown_fields=True, gc=False):
    name: Name
    description: str = ""
    parameters: PlainSchema = None
    strict: bool = False


class Tool(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["function"]
    function: Function


class StreamOptions(exact_requests.StreamOptions, forbid_unknown_fields=True):
    include_usage: bool = None
    include_obfuscation: bool = None


class CommonChat(exact_requests.Chat, kw_only=True, forbid_unknown_fields=True):
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
    tools: msgspec.Raw = None
    """Checked by `_TOOLS`."""
    tool_choice: Literal["none", "auto", "required"] = None
    parallel_tool_calls: bool = None
    reasoning_effort: Effort = None
    prompt_cache_key: Scalar = None
    prompt_cache_retention: Scalar = None
    store: Scalar = None
    verbosity: Scalar = None
    # They are checked or converted in ways of their own.
    response_format: Absent = msgspec.UNSET
    repetition_penalty: Absent = None
    stop_token_ids: Absent = None
    lora_name: Absent = None
    guided_json: Absent = msgspec.UNSET
    guided_regex: Absent = None
    guided_choice: Absent = None
    guided_grammar: Absent = None
    guided_json_object: Absent = None
    top_logprobs: Absent = None
    enable_thinking: Absent = None
    chat_template_kwargs: Absent = None
    audio: Absent = None
    function_call: Absent = None
    functions: Absent = None
    modalities: Absent = None
    prediction: Absent = None
    web_search_options: Absent = None


class CommonConversation(CommonChat, kw_only=True, forbid_unknown_fields=True):
    """A common chat with calls in its messages."""

    messages: Annotated[list[MessageOrCall], Meta(min_length=1)]


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

_decode = msgspec.json.Decoder(CommonChat).decode
_decode_conversation = msgspec.json.Decoder(CommonConversation).decode
#: Decodes all of it: an engine must be able to read what the forms skip, such as the number 1e999.
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_tools = msgspec.json.Decoder(Annotated[list[Tool], Meta(min_length=1, max_length=MAX_ALTERNATIVES)]).decode


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
            if not _is_about_call(str(error)):
                raise
            chat = _conversation(body)
    if chat is None:
        return None
    messages = chat.messages
    if len(messages) > 1 and messages[-1].role == "assistant" == messages[-2].role:
        return None  # they begin one answer, and are joined
    if chat.tools is None:
        return chat if chat.tool_choice is None else None
    return chat if KNOWN_TOOLS.has(chat.tools) else None


def _is_about_call(error: str) -> bool:
    """Whether the error is about a message that may be one of a `CommonConversation`."""
    return error.endswith(".content`") or error.startswith(_FURTHER)


def _conversation(body: bytes) -> CommonConversation | None:
    try:
        chat = _decode_conversation(body)
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


class KnownTools:
    """Remembers which tools are common, by a hash: the requests of a program repeat its tools.

    Python's hash of bytes has a secret key, so that nobody can make other tools with the hash of known ones.
    """

    def __init__(self, maximum: int = 1024) -> None:
        self._maximum = maximum
        self._hashes: set[int] = set()

    def has(self, tools: msgspec.Raw) -> bool:
        """Whether these tools are common; they are decoded only if they are new."""
        text = bytes(tools)
        value = hash(text)
        if value in self._hashes:
            return True
        if len(text) > MAX_BYTES:  # their schemas are searched for more
            return False
        try:
            _decode_tools(text)
            msgspec.json.decode(text)
        except msgspec.ValidationError:
            return False
        if len(self._hashes) >= self._maximum:
            self._hashes.clear()
        self._hashes.add(value)
        return True


KNOWN_TOOLS = KnownTools()
