"""The forms of bodies with only known fields, at every depth. Most requests have such a body.

A body that matches one of these forms can contain media only in the form's fields for media, and these accept no
address. So it is not searched for addresses, and it has no fields that only an engine knows. The schemas of its tools
have no part that a compiler could expand.
"""

# Each form narrows fields of its base to the exact forms, which mypy reports as a wrong override of a mutable field.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from xinference.protocol import message_forms, requests
from xinference.protocol.constraint_limits import MAX_ALTERNATIVES, MAX_VALUES
from xinference.protocol.field_types import TokenId
from xinference.protocol.message_forms import BlockType, DataUri, PartType
from xinference.protocol.requests import Request

#: JSON that engines read as text or ignore.
Skipped = msgspec.Raw | UnsetType
#: JSON that cannot hold a text below a name, for fields of the APIs that have no form here: no address is in it that an
#: engine could read as media. A body with another value is searched.
Plain = str | int | float | bool | None | list[str | int | float | bool | None] | dict[str, int | float | bool | None]
#: Levels of the schemas that are decoded here; `schema_limits` checks deeper ones.
SCHEMA_LEVELS = 8


def _plain_schema() -> Any:
    """A form for schemas without references, patterns, maxima and merged parts."""
    inner: Any = bool
    for _ in range(SCHEMA_LEVELS):
        alternatives = Annotated[list[inner], Meta(max_length=MAX_ALTERNATIVES)]
        value = str | int | float | bool | None
        inner = msgspec.defstruct(
            "PlainSchema",
            [
                ("type", str | list[str] | None, None),
                ("title", str | None, None),
                ("description", str | None, None),
                ("format", str | None, None),
                ("nullable", bool | None, None),
                ("strict", bool | None, None),
                ("default", Skipped, UNSET),
                ("examples", Skipped, UNSET),
                ("const", value, None),
                ("enum", Annotated[list[value], Meta(max_length=MAX_VALUES)] | None, None),
                ("properties", Annotated[dict[str, inner], Meta(max_length=MAX_ALTERNATIVES)] | None, None),
                ("required", list[str] | None, None),
                ("additionalProperties", inner if inner is bool else bool | inner, True),
                ("items", inner if inner is bool else inner | None, None),
                ("anyOf", alternatives | None, None),
                ("oneOf", alternatives | None, None),
                ("minimum", float | None, None),
                ("exclusiveMinimum", float | None, None),
                ("minLength", Annotated[int, Meta(ge=0, le=100)] | None, None),
                ("minItems", Annotated[int, Meta(ge=0, le=100)] | None, None),
                ("dialect", str | None, msgspec.field(default=None, name="$schema")),
            ],
            forbid_unknown_fields=True,
        )
    return inner


PlainSchema: Any = _plain_schema()


class CacheControl(Struct, forbid_unknown_fields=True):
    type: str | None = None
    ttl: str | None = None


class Link(message_forms.Link, forbid_unknown_fields=True):
    detail: str | None = None


class Recording(message_forms.Recording, forbid_unknown_fields=True):
    pass


class MediaSource(message_forms.MediaSource, forbid_unknown_fields=True):
    media_type: str | None = None


class Piece(message_forms.Piece, forbid_unknown_fields=True):
    """The common members of parts and blocks."""

    image_url: Link | DataUri | None = None
    audio_url: Link | None = None
    input_audio: Recording | None = None
    detail: str | None = None
    cache_control: CacheControl | None = None
    # A call and its result.
    id: str | None = None
    name: str | None = None
    input: Skipped = UNSET
    tool_use_id: str | None = None
    is_error: bool | None = None
    # Thoughts, and the metadata of an earlier answer.
    thinking: str | None = None
    signature: str | None = None
    refusal: str | None = None
    annotations: Skipped = UNSET
    citations: Skipped = UNSET
    logprobs: Skipped = UNSET


class Part(Piece, forbid_unknown_fields=True):
    type: PartType
    source: MediaSource | None = None
    content: str | list[Part] | None = None


class BlockSource(message_forms.BlockSource, forbid_unknown_fields=True):
    content: str | list[Part] | None = None
    media_type: str | None = None


class Block(Piece, forbid_unknown_fields=True):
    type: BlockType
    source: BlockSource | str | None = None
    content: str | list[Block] | None = None
    # A document, or a search result.
    title: str | None = None
    context: str | None = None


class CalledFunction(message_forms.CalledFunction, forbid_unknown_fields=True):
    pass


class ToolCall(message_forms.ToolCall, forbid_unknown_fields=True):
    function: CalledFunction | None = None
    type: str | None = None
    index: int | None = None


class ChatMessage(message_forms.ChatMessage, forbid_unknown_fields=True):
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: Skipped = UNSET
    audio: Plain = None
    function_call: Plain = None


class AnthropicMessage(message_forms.AnthropicMessage, forbid_unknown_fields=True):
    content: str | list[Block] | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: Skipped = UNSET
    audio: Plain = None
    function_call: Plain = None


class Function(message_forms.Function, forbid_unknown_fields=True):
    parameters: PlainSchema | None = None
    strict: bool | None = None


class Tool(message_forms.Tool, forbid_unknown_fields=True):
    function: Function | None = None
    parameters: PlainSchema | None = None
    input_schema: PlainSchema | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


class Item(requests.Item, forbid_unknown_fields=True):
    content: str | list[Part] | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    id: str | None = None
    status: str | None = None
    encrypted_content: str | None = None
    phase: str | None = None
    namespace: str | None = None
    input: str | None = None
    action: Skipped = UNSET


class Document(requests.Document, forbid_unknown_fields=True):
    image: None = None
    image_url: None = None
    video: None = None
    audio: None = None


Messages = Annotated[list[ChatMessage], Meta(min_length=1)]
AnthropicTurns = Annotated[list[AnthropicMessage], Meta(min_length=1)]
Tools = Annotated[list[Tool], Meta(max_length=MAX_ALTERNATIVES)]


class StreamOptions(requests.StreamOptions, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None


class NamedFunction(Struct, forbid_unknown_fields=True):
    name: str


class ToolChoice(Struct, forbid_unknown_fields=True):
    type: str | None = None
    name: str | None = None
    function: NamedFunction | None = None


class NamedChoice(requests.NamedChoice, forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class Thinking(requests.Thinking, forbid_unknown_fields=True):
    type: str | None = None
    display: str | None = None


class Reasoning(Struct, forbid_unknown_fields=True):
    effort: str | None = None
    summary: str | None = None


class Chat(requests.Chat, kw_only=True, forbid_unknown_fields=True):
    messages: Messages
    tools: Tools | None = None
    functions: Tools | None = None
    stream_options: StreamOptions | None = None
    tool_choice: str | ToolChoice | None = None
    chat_template_kwargs: Plain = None
    audio: Plain = None
    function_call: str | dict[str, str | int | float | bool | None] | None = None
    modalities: Plain = None
    prediction: Plain = None
    prompt_cache_key: Plain = None
    prompt_cache_retention: Plain = None
    store: Plain = None
    verbosity: Plain = None
    web_search_options: Plain = None


class Completion(requests.Completion, kw_only=True, forbid_unknown_fields=True):
    stream_options: StreamOptions | None = None


class Responses(requests.Responses, kw_only=True, forbid_unknown_fields=True):
    input: str | Annotated[list[Item], Meta(min_length=1)]
    tools: Tools | None = None
    tool_choice: str | ToolChoice | None = None
    reasoning: Reasoning | None = None
    stream_options: Plain = None
    moderation: Plain = None
    prompt: Plain = None
    background: Plain = None
    context_management: Plain = None
    conversation: Plain = None
    include: Plain = None
    max_tool_calls: Plain = None
    prompt_cache_key: Plain = None
    prompt_cache_retention: Plain = None
    store: Plain = None
    truncation: Plain = None


class CountTokens(requests.CountTokens, kw_only=True, forbid_unknown_fields=True):
    messages: AnthropicTurns
    system: str | list[Part] | None = None
    tools: Tools | None = None
    tool_choice: NamedChoice | None = None
    thinking: Thinking | None = None
    cache_control: CacheControl | None = None
    context_management: Plain = None


class AnthropicMessages(requests.AnthropicMessages, kw_only=True, forbid_unknown_fields=True):
    messages: AnthropicTurns
    system: str | list[Part] | None = None
    tools: Tools | None = None
    tool_choice: NamedChoice | None = None
    thinking: Thinking | None = None
    cache_control: CacheControl | None = None
    context_management: Plain = None
    betas: Plain = None
    container: Plain = None
    inference_geo: Plain = None


class Embeddings(requests.Embeddings, kw_only=True, forbid_unknown_fields=True):
    input: str | Annotated[list[str | TokenId | list[TokenId] | Document], Meta(min_length=1)]


class Rerank(requests.Rerank, kw_only=True, forbid_unknown_fields=True):
    query: str | Document
    documents: Annotated[list[str | Document], Meta(min_length=1)]


ScoreTexts = str | Document | Annotated[list[str | Document], Meta(min_length=1, max_length=4096)]


class Score(requests.Score, kw_only=True, forbid_unknown_fields=True):
    text_1: ScoreTexts | None = None
    text_2: ScoreTexts | None = None
    data_1: ScoreTexts | None = None
    data_2: ScoreTexts | None = None
    queries: ScoreTexts | None = None
    documents: ScoreTexts | None = None
    items: ScoreTexts | None = None


class TokenIds(requests.TokenIds, kw_only=True, forbid_unknown_fields=True):
    pass


class Tokenize(requests.Tokenize, kw_only=True, forbid_unknown_fields=True):
    messages: Messages | None = None
    tools: Tools | None = None
    chat_template_kwargs: Plain = None


class Detokenize(requests.Detokenize, kw_only=True, forbid_unknown_fields=True):
    pass


class Infill(requests.Infill, kw_only=True, forbid_unknown_fields=True):
    pass


class Template(requests.Template, kw_only=True, forbid_unknown_fields=True):
    messages: Messages
    tools: Tools | None = None
    tool_choice: str | ToolChoice | None = None
    chat_template_kwargs: Plain = None


_FORMS: tuple[type[Request], ...] = (
    Chat, Completion, Responses, CountTokens, AnthropicMessages, Embeddings, Rerank, Score, TokenIds, Tokenize,
    Detokenize, Infill, Template,
)  # fmt: skip
for _form in _FORMS:
    _form.has_further_fields = False

#: The decoder of the exact form of each form of `requests`.
EXACT: dict[Any, msgspec.json.Decoder[Request]] = {form.__bases__[0]: msgspec.json.Decoder(form) for form in _FORMS}
