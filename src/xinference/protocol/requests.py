"""The form of each request body, with the limits of OpenAI's and Anthropic's API references.

Some engines accept requests that these APIs refuse, such as an unknown model or empty messages, so the gateway refuses
them. These forms ignore other fields, which `request_check` checks.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct

from xinference.error_codes import Code
from xinference.protocol.constraint_limits import MAX_VALUES
from xinference.protocol.errors import Refusal
from xinference.protocol.field_types import (
    MAX_INT32,
    Bias,
    Choices,
    Effort,
    JsonObject,
    JsonOrText,
    Name,
    Opaque,
    Penalty,
    Positive,
    Repetition,
    Seed,
    Share,
    Stops,
    StopText,
    Switch,
    Temperature,
    TokenId,
    Tokens,
    TopK,
    UpTo20,
)
from xinference.protocol.message_forms import AnthropicMessage, Messages, Part, Tool


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
    # Fields outside OpenAI's API that every engine reads, with the same meaning and bounds.
    top_k: TopK | None = None
    min_p: Share | None = None
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
    top_k: Annotated[int, Meta(ge=0, le=MAX_INT32)] | None = None
    betas: Any = None
    container: Any = None
    inference_geo: Any = None


class Document(Struct):
    """An object with a text. Media in it are refused, and other fields are ignored."""

    text: str | None = None
    image: Any = None
    image_url: Any = None
    video: Any = None
    audio: Any = None


class Embeddings(Request, kw_only=True):
    input: str | Annotated[list[str | TokenId | list[TokenId] | Document], Meta(min_length=1)]
    dimensions: Positive | None = None
    encoding_format: Literal["float", "base64"] | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=MAX_INT32)] | None = None


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
    enable_thinking: bool | None = None
    """Of ``messages``: whether the model thinks, if the chat template has such a switch."""
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
    enable_thinking: bool | None = None
    chat_template_kwargs: Opaque | str | None = None


def text_of(document: str | Document, param: str) -> str:
    """The text of a document in either form."""
    if isinstance(document, str):
        return document
    if document.text is None:
        raise Refusal(Code.UNSUPPORTED_CONTENT, f"{param} has no text; this model accepts only text.", param=param)
    for name in ("image", "image_url", "video", "audio"):
        if getattr(document, name):
            cause = f"{param}.{name}: this model accepts only text."
            raise Refusal(Code.UNSUPPORTED_CONTENT, cause, param=f"{param}.{name}")
    return document.text
