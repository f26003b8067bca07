"""The form of each request body: decoded and checked in one pass; unknown fields are ignored.

Some engines accept what OpenAI's and Anthropic's APIs refuse, such as an unknown model or empty messages, so the
gateway refuses it. The limits are those of the two API references.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

Name = Annotated[str, Meta(min_length=1)]
Positive = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
UpTo20 = Annotated[int, Meta(ge=0, le=20)]
Choices = Annotated[int, Meta(ge=1, le=128)]


class Opaque(Struct):
    """Any JSON object."""


def _check_here(url: str) -> None:
    # An engine would fetch it, from this machine and with this machine's reach.
    if not url.startswith("data:"):
        raise ValueError("media is taken as a data: URI only, addresses are not fetched")


class Link(Struct):
    """Where a piece of media is."""

    url: str

    def __post_init__(self) -> None:
        _check_here(self.url)


class MediaSource(Struct):
    """The same in Anthropic's form."""

    url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None:
            _check_here(self.url)


class Part(Struct):
    """One piece of a message's content: text, an image, a tool's result."""

    type: Name
    image_url: Link | str | None = None
    video_url: Link | None = None
    audio_url: Link | None = None
    source: MediaSource | None = None

    def __post_init__(self) -> None:
        if isinstance(self.image_url, str):
            _check_here(self.image_url)


class ChatMessage(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None


Messages = Annotated[list[ChatMessage], Meta(min_length=1)]
#: Text, several texts, token ids, or several lists of token ids.
Tokens = str | Annotated[list[str | int | list[int]], Meta(min_length=1)]


class Request(Struct, kw_only=True):
    """What every data path's body has."""

    model: Name
    stream: bool | None = None
    request_id: Annotated[str, Meta(max_length=200)] | None = None
    """By which it can be aborted."""


class Sampling(Request, kw_only=True):
    temperature: Temperature | None = None
    top_p: Share | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None


class Generation(Sampling, kw_only=True):
    """What chat and plain completions have in common."""

    max_tokens: Positive | None = None
    n: Choices | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    response_format: Opaque | None = None
    stream_options: StreamOptions | None = None
    # Fields outside OpenAI's API that older clients of Xinference send: see `gateway.engine_requests`.
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    lora_name: str | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Meta(min_length=1)] | None = None
    guided_grammar: str | None = None
    guided_json_object: bool | None = None


class Chat(Generation, kw_only=True):
    messages: Messages
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: UpTo20 | None = None
    tools: list[Opaque] | None = None
    tool_choice: str | Opaque | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: Opaque | str | None = None


class Completion(Generation, kw_only=True):
    prompt: Tokens
    logprobs: UpTo20 | None = None
    echo: bool | None = None


class Item(Struct):
    """One item of a response's input: a message, a call or its result."""

    content: str | list[Part] | None = None


class Responses(Sampling, kw_only=True):
    input: str | Annotated[list[Item], Meta(min_length=1)]
    max_output_tokens: Positive | None = None
    tools: list[Opaque] | None = None


class CountTokens(Request, kw_only=True):
    messages: Messages
    tools: list[Opaque] | None = None


class AnthropicMessages(Sampling, kw_only=True):
    messages: Messages
    max_tokens: Positive
    tools: list[Opaque] | None = None
    stop_sequences: list[str] | None = None


class Document(Struct):
    """A text in an object; what else it has is for models that see."""

    text: str | None = None


class Embeddings(Request, kw_only=True):
    input: str | Annotated[list[str | int | list[int] | Document], Meta(min_length=1)]
    dimensions: Positive | None = None
    encoding_format: Literal["float", "base64"] | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1)] | None = None


class Rerank(Request, kw_only=True):
    query: str | Document
    documents: Annotated[list[str | Document], Meta(min_length=1)]
    top_n: Positive | None = None
    return_documents: bool | None = None
    return_len: bool | None = None


class TokenIds(Request, kw_only=True):
    input: Annotated[list[int | list[int]], Meta(min_length=1, max_length=4096)]


class Template(Request, kw_only=True):
    messages: Messages


def check(decoder: msgspec.json.Decoder[Request], body: bytes) -> Request:
    """Decode what the gateway needs of `body` and check its shape.

    Raises:
        Refusal: 400, saying where the JSON breaks or which field is wrong.
    """
    try:
        if not body.isascii():
            # msgspec does not look inside the strings it skips, and the engine gets all of them.
            body.decode()
        request = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except msgspec.DecodeError as error:
        raise _not_json(body, str(error)) from None
    except UnicodeDecodeError as error:
        byte, at = error.object[error.start], error.start
        raise _bad_json(f"The body is not UTF-8: byte 0x{byte:02x} at byte {at}.") from None
    except RecursionError:
        raise _bad_json("The body's JSON is nested too deeply.") from None
    if isinstance(request, Completion):
        _check_one_kind(request.prompt)
    return request


def _check_one_kind(prompt: Tokens) -> None:
    if isinstance(prompt, list) and len(set(map(type, prompt))) > 1:
        raise _invalid("prompt mixes texts and tokens: all its items must be of one kind.", "prompt")


_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")
_BYTE = re.compile(r"^(?P<what>.*) \(byte (?P<at>\d+)\)$")


def _wrong_field(message: str) -> Refusal:
    """Turn "Expected `str`, got `int` - at `$.messages[0].role`" into a refusal that names the field."""
    match = _AT.match(message)
    assert match is not None
    what, path = match["what"], match["path"] or ""
    missing = _MISSING.match(what)
    if missing:
        param = f"{path}.{missing['name']}" if path else missing["name"]
        return _invalid(f"{param} is required.", param)
    if not path:
        return _invalid(f"The body must be a JSON object: {_lower(what)}.", None)
    return _invalid(f"{path}: {_lower(what)}.", path)


def _not_json(body: bytes, message: str) -> Refusal:
    match = _BYTE.match(message)
    if match is None:
        return _bad_json(f"The body is not valid JSON: {_lower(message)} (byte {len(body)}).")
    what, at = match["what"].removeprefix("JSON is malformed: "), int(match["at"])
    line, column = body.count(b"\n", 0, at) + 1, at - body.rfind(b"\n", 0, at)
    return _bad_json(f"The body is not valid JSON: {what} at line {line}, column {column} (byte {at}).")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _invalid(cause: str, param: str | None) -> Refusal:
    return Refusal(Code.INVALID_REQUEST, cause, param=param)


def _bad_json(cause: str) -> Refusal:
    return Refusal(Code.INVALID_JSON, cause)


def text_of(document: str | Document, param: str) -> str:
    """The text of a document in either form."""
    if isinstance(document, str):
        return document
    if document.text is None:
        raise Refusal(Code.UNSUPPORTED_CONTENT, f"{param} has no text; this model takes nothing else.", param=param)
    return document.text
