"""The request bodies, checked in one pass; the limits are those of OpenAI's API reference."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from .errors import RefusedError

Positive = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
#: The length of truncated inputs in tokens; -1: the longest that the model reads.
Truncation = Annotated[int, Meta(ge=-1)]
R = TypeVar("R", bound=Struct)


class JsonSchema(Struct):
    schema_: dict[str, Any] | bool = msgspec.field(name="schema", default=True)


class ResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Struct):
    include_usage: bool = False


class Function(Struct):
    name: Annotated[str, Meta(min_length=1)]
    parameters: dict[str, Any] | None = None


class Tool(Struct):
    """Checked by this schema, and passed to the template unchanged."""

    type: Literal["function"]
    function: Function


class NamedTool(Struct):
    function: Function


class GenerationRequest(Struct, kw_only=True):
    """The common fields of chat and completions."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Share | None = None
    seed: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    guided_json: dict[str, Any] | str | None = None


class ChatRequest(GenerationRequest, kw_only=True):
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    """False: the answer is a new message, also after one of the assistant."""

    def tool_schemas(self) -> dict[str, dict[str, Any]]:
        """Schema of each tool's arguments, by the tool's name."""
        try:
            tools = msgspec.convert(self.tools or [], list[Tool])
        except msgspec.ValidationError as error:
            raise RefusedError(f"tools: {error}.", param="tools") from None
        return {tool.function.name: tool.function.parameters or {"type": "object"} for tool in tools}


class CompletionRequest(GenerationRequest, kw_only=True):
    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool = False
    suffix: str | None = None


class EmbeddingRequest(Struct, kw_only=True):
    model: str
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    truncate_prompt_tokens: Truncation | None = None
    prompt_name: str | None = None
    """The name of a prompt of the model that is put before each text."""
    normalize_embeddings: bool | None = None
    """False: the vectors as the model's modules make them."""
    return_sparse: bool = False
    """The weights of the tokens in place of vectors, as BGE-M3 makes them."""


class RerankRequest(Struct, kw_only=True):
    model: str
    query: str
    documents: Annotated[list[str], Meta(min_length=1)]
    top_n: Positive | None = None
    truncate_prompt_tokens: Truncation | None = None


class TokenizeRequest(Struct, kw_only=True):
    """llama.cpp's ``content`` or vLLM's ``prompt`` or ``messages``."""

    content: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special: bool = False
    add_special_tokens: bool = True


class DetokenizeRequest(Struct, kw_only=True):
    tokens: list[int]


class TemplateRequest(Struct, kw_only=True):
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None


def read(body: bytes, kind: type[R]) -> R:
    """Decode a body.

    Raises:
        RefusedError: 400, which names the fault and the field.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        field = where.rstrip("`")
        raise RefusedError(f"{field}: {what}." if field else f"{what}.", param=field or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(f"The body is not valid JSON: {error}.", code="invalid_json") from None
