"""The form of each request body, with the limits of OpenAI's and Anthropic's API references.

Some engines accept requests that these APIs refuse, such as an unknown model or empty messages, so the gateway refuses
them. These forms ignore other fields, which `request_check` checks.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from xinference.error_codes import Code
from xinference.protocol.constraint_limits import MAX_VALUES
from xinference.protocol.errors import Refusal

Name = Annotated[str, Meta(min_length=1)]
#: The largest number that all engines read: some keep numbers of tokens and token ids in 32 bits.
MOST = 2**31 - 1
Positive = Annotated[int, Meta(ge=1, le=MOST)]
TokenId = Annotated[int, Meta(ge=-MOST - 1, le=MOST)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
#: Engines multiply and divide by it in 32 bits.
Repetition = Annotated[float, Meta(ge=1e-3, le=1e3)]
Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
UpTo20 = Annotated[int, Meta(ge=0, le=20)]
Choices = Annotated[int, Meta(ge=1, le=128)]
#: A text that ends an answer.
StopText = Annotated[str, Meta(max_length=1024)]
Stops = StopText | Annotated[list[StopText], Meta(max_length=64)]
#: OpenAI's bounds; `false`: the token never appears.
TokenBias = Annotated[float, Meta(ge=-100, le=100)] | bool
Bias = Annotated[dict[Annotated[str, Meta(max_length=1024)], TokenBias], Meta(max_length=1024)]
#: How much a model thinks, in the words of all APIs.
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
#: JSON that is not decoded here; `schema_limits` checks its size and complexity.
JsonObject = Annotated[msgspec.Raw | UnsetType, Meta(extra_json_schema={"type": ["object", "null"]})]
JsonOrText = Annotated[msgspec.Raw | UnsetType, Meta(extra_json_schema={"type": ["object", "string", "null"]})]


class Opaque(Struct):
    """Any JSON object."""


#: A URI that contains the media itself: engines would fetch any other address from this machine's network.
DataUri = Annotated[str, Meta(pattern="^data:")]
#: The types of content that are passed on; other types may be files or media that the gateway cannot check.
PartType = Literal[
    "text", "input_text", "output_text", "refusal", "image_url", "image", "input_image", "audio_url", "input_audio",
    "tool_use", "tool_result", "thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text",
]  # fmt: skip


class Link(Struct):
    """A data URI with media."""

    url: DataUri


class Recording(Struct):
    """Audio as base64, in OpenAI's form."""

    data: Annotated[str, Meta(pattern="^(data:|[A-Za-z0-9+/=_\\s-]*$)")]
    format: str | None = None


class MediaSource(Struct):
    """Media in Anthropic's form."""

    type: str | None = None
    url: DataUri | None = None
    data: Annotated[str, Meta(pattern="^(data:|[A-Za-z0-9+/=_\\s-]*$)")] | None = None


class Part(Struct):
    """One piece of a message's content: text, an image, a tool's result."""

    type: PartType
    text: str | None = None
    image_url: Link | DataUri | None = None
    image: DataUri | None = None
    audio_url: Link | None = None
    input_audio: Recording | None = None
    source: MediaSource | None = None
    content: str | list[Part] | None = None
    """The content of a tool's result."""


#: The types of content of messages in Anthropic's form.
BlockType = Literal[PartType, "document", "search_result"]


class BlockSource(Struct):
    """Media in Anthropic's form, or a document: its data is a text, and its content has parts."""

    type: str | None = None
    url: DataUri | None = None
    data: str | None = None
    content: str | list[Part] | None = None


class Block(Struct):
    """One piece of a message's content in Anthropic's form. `gateway.canonical_messages` checks its media."""

    type: BlockType
    text: str | None = None
    image_url: Link | DataUri | None = None
    image: DataUri | None = None
    audio_url: Link | None = None
    input_audio: Recording | None = None
    source: BlockSource | str | None = None
    """An image, a document, or the name of the source of a search result."""
    content: str | list[Block] | None = None
    """The content of a tool's result, or of a search result."""


class CalledFunction(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCall(Struct):
    id: str | None = None
    function: CalledFunction | None = None


class ChatMessage(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class Function(Struct):
    name: str | None = None
    description: str | None = None
    parameters: JsonObject = UNSET


class Tool(Struct):
    """A tool, in the form of OpenAI's chats, of OpenAI's responses, or of Anthropic's messages."""

    type: str | None = None
    function: Function | None = None
    name: str | None = None
    description: str | None = None
    parameters: JsonObject = UNSET
    input_schema: JsonObject = UNSET


class AnthropicMessage(ChatMessage):
    content: str | list[Block] | None = None  # type: ignore[assignment]  # never assigned


Messages = Annotated[list[ChatMessage], Meta(min_length=1)]
#: Text, several texts, token ids, or several lists of token ids.
Tokens = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]


class Named(Struct):
    """The model of any body."""

    model: Name


class Request(Struct, kw_only=True):
    """The common fields of all request bodies."""

    has_further_fields: ClassVar[bool] = True
    """Whether the body may have other fields; False for the forms of `exact_requests`."""
    is_common: ClassVar[bool] = False
    """Whether every engine reads the body as it is; True for the forms of `common_chats`."""

    model: Name
    stream: bool | None = None
    request_id: Annotated[str, Meta(max_length=200)] | None = None
    """The id by which the request can be aborted."""
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    """Read by the gateway: a lower number gets its place first."""


class Sampling(Request, kw_only=True):
    temperature: Temperature | None = None
    top_p: Share | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None


class Generation(Sampling, kw_only=True):
    """The common fields of chat completions and completions."""

    max_tokens: Positive | None = None
    n: Choices | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    stop: Stops | None = None
    seed: Seed | None = None
    response_format: JsonObject = UNSET
    stream_options: StreamOptions | None = None
    # Fields outside OpenAI's API that older clients of Xinference send; `gateway.engine_requests` rewrites them.
    repetition_penalty: Repetition | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    lora_name: str | None = None
    guided_json: JsonOrText = UNSET
    guided_regex: str | None = None
    guided_choice: Annotated[list[StopText], Meta(min_length=1, max_length=MAX_VALUES)] | None = None
    guided_grammar: str | None = None
    guided_json_object: bool | None = None


class Chat(Generation, kw_only=True):
    messages: Messages
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: UpTo20 | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Opaque | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: Opaque | str | None = None
    # Fields of OpenAI's API that no engine here reads.
    audio: Opaque | None = None
    function_call: str | dict[str, Any] | None = None
    functions: list[Tool] | None = None
    modalities: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


class Completion(Generation, kw_only=True):
    prompt: Tokens
    logprobs: UpTo20 | None = None
    echo: bool | None = None
    best_of: Choices | None = None
    suffix: str | None = None


class Item(Struct):
    """One item of a response's input: a message, a call or its result. `gateway.responses` reads the rest."""

    type: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    output: Any = None
    arguments: str | dict[str, Any] | None = None
    name: str | None = None
    call_id: str | None = None


class Responses(Sampling, kw_only=True):
    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Opaque | None = None
    text: JsonObject = UNSET
    reasoning: Opaque | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: UpTo20 | None = None
    stream_options: Opaque | None = None
    moderation: Any = None
    prompt: Any = None
    # Fields of OpenAI's API that no engine here reads.
    background: Any = None
    context_management: Any = None
    conversation: Any = None
    include: Any = None
    max_tool_calls: Any = None
    previous_response_id: str | None = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    store: Any = None
    truncation: Any = None


class NamedChoice(Struct):
    """Which tool a message's answer calls."""

    type: str | None = None
    name: str | None = None


class Thinking(Struct):
    """How much a model may think."""

    budget_tokens: Positive | None = None


class AnthropicCommon(Sampling, kw_only=True):
    """The common fields of a message and of the count of its tokens."""

    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    system: str | list[Part] | None = None
    tools: list[Tool] | None = None
    tool_choice: NamedChoice | None = None
    thinking: Thinking | None = None
    output_config: JsonObject = UNSET
    output_format: JsonObject = UNSET
    cache_control: Any = None
    context_management: Any = None


class CountTokens(AnthropicCommon, kw_only=True):
    pass


class AnthropicMessages(AnthropicCommon, kw_only=True):
    max_tokens: Positive
    stop_sequences: Annotated[list[StopText], Meta(max_length=64)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=MOST)] | None = None
    betas: Any = None
    container: Any = None
    inference_geo: Any = None


class Document(Struct):
    """An object with a text. Other fields are ignored; they are for vision models."""

    text: str | None = None


class Embeddings(Request, kw_only=True):
    input: str | Annotated[list[str | TokenId | list[TokenId] | Document], Meta(min_length=1)]
    dimensions: Positive | None = None
    encoding_format: Literal["float", "base64"] | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=MOST)] | None = None


#: A switch in each form that pydantic, which other servers use, reads as a boolean: clients send texts and numbers.
Switch = (
    bool
    | Literal[
        0, 1, "0", "1", "true", "false", "True", "False", "TRUE", "FALSE", "yes", "no", "Yes", "No", "YES", "NO", "on",
        "off", "On", "Off", "ON", "OFF", "t", "f", "T", "F", "y", "n", "Y", "N",
    ]
)  # fmt: skip
_ON = frozenset({"1", "true", "yes", "on", "t", "y"})


def is_on(switch: Switch | None) -> bool:
    """Whether a switch is on; an absent one is off."""
    return switch.lower() in _ON if isinstance(switch, str) else bool(switch)


class Rerank(Request, kw_only=True):
    query: str | Document
    documents: Annotated[list[str | Document], Meta(min_length=1)]
    top_n: Positive | None = None
    return_documents: Switch | None = None
    return_len: Switch | None = None


#: Texts to compare: one, or a list.
ScoreTexts = str | Document | Annotated[list[str | Document], Meta(min_length=1, max_length=4096)]


class Score(Request, kw_only=True):
    """Texts to compare, in each form of clients: ``text_1`` and ``text_2``, or ``queries`` and ``documents``."""

    text_1: ScoreTexts | None = None
    text_2: ScoreTexts | None = None
    data_1: ScoreTexts | None = None
    data_2: ScoreTexts | None = None
    queries: ScoreTexts | None = None
    documents: ScoreTexts | None = None
    items: ScoreTexts | None = None


class TokenIds(Request, kw_only=True):
    input: Annotated[list[TokenId | list[TokenId]], Meta(min_length=1, max_length=4096)]


class Tokenize(Request, kw_only=True):
    """A text in one of two forms of clients (``content`` and ``prompt``), or a conversation."""

    content: str | list[str | TokenId] | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special: bool | None = None
    """Of ``content``: add the special tokens of a prompt's beginning and end; False by default."""
    with_pieces: bool | None = None
    """Of ``content``: each token is an object with its id and its text."""
    add_special_tokens: bool | None = None
    """Of ``prompt``: the same as ``add_special``; True by default."""
    return_token_strs: bool | None = None
    """Of ``prompt``: add the texts of the tokens as ``token_strs``."""
    tools: list[Tool] | None = None
    """Of ``messages``: the tools of the conversation."""
    chat_template_kwargs: Opaque | str | None = None
    """Of ``messages``: arguments of the chat template."""


class Detokenize(Request, kw_only=True):
    tokens: list[TokenId]


class Infill(Request, kw_only=True):
    prompt: Tokens | None = None
    input_prefix: str | None = None
    input_suffix: str | None = None


class Template(Request, kw_only=True):
    messages: Messages
    tools: list[Tool] | None = None
    tool_choice: str | Opaque | None = None
    parallel_tool_calls: bool | None = None
    response_format: JsonObject = UNSET
    reasoning_effort: str | None = None
    chat_template_kwargs: Opaque | str | None = None


def text_of(document: str | Document, param: str) -> str:
    """The text of a document in either form."""
    if isinstance(document, str):
        return document
    if document.text is None:
        raise Refusal(Code.UNSUPPORTED_CONTENT, f"{param} has no text; this model accepts only text.", param=param)
    return document.text
