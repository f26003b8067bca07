"""The forms of messages, of their content, and of tools."""

# Some forms narrow the type of their base, which mypy reports as a wrong override of a mutable field.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from xinference.protocol.field_types import JsonObject

#: A URI that contains the media itself: engines would fetch any other address from this machine's network.
DataUri = Annotated[str, Meta(pattern="^data:")]
#: The types of content of all APIs; other types may be media that the gateway cannot check.
_CommonType = Literal[
    "text", "input_text", "output_text", "refusal", "image_url", "image", "input_image", "audio_url", "input_audio",
    "tool_use", "tool_result", "thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text",
]  # fmt: skip
#: The types of content of OpenAI's APIs. `gateway.text_files` reads the files.
PartType = Literal[_CommonType, "file", "input_file"]


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


class Piece(Struct):
    """The common members of pieces of content."""

    type: str
    text: str | None = None
    image_url: Link | DataUri | None = None
    image: DataUri | None = None
    audio_url: Link | None = None
    input_audio: Recording | None = None


class Part(Piece):
    """One piece of a message's content: text, an image, a tool's result."""

    type: PartType
    source: MediaSource | None = None
    content: str | list[Part] | None = None
    """The content of a tool's result."""


#: The types of content of messages in Anthropic's form.
BlockType = Literal[_CommonType, "document", "search_result"]


class BlockSource(Struct):
    """Media in Anthropic's form, or a document: its data is a text, and its content has parts."""

    type: str | None = None
    url: DataUri | None = None
    data: str | None = None
    content: str | list[Part] | None = None


class Block(Piece):
    """One piece of a message's content in Anthropic's form. `gateway.canonical_messages` checks its media."""

    type: BlockType
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
    content: str | list[Block] | None = None


Messages = Annotated[list[ChatMessage], Meta(min_length=1)]
