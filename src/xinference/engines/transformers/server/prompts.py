"""Converts messages or text to the tokens of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers.utils import chat_template_utils

from .content_parts import IMAGE, ImagePart, plain_messages, without_developers
from .errors import RefusedError
from .limited import LimitError, Workers, WorkFailedError
from .loading import LoadedModel
from .prompt_images import PromptImages
from .token_codec import TokenCodec

#: The prefix of a chat template's own refusal, which the gateway recognises.
TEMPLATE_REFUSAL = "Jinja Exception: "


#: Arguments of `apply_chat_template` itself, which a request does not set.
RESERVED_OPTIONS = frozenset(
    {
        "self", "conversation", "messages", "tools", "documents", "chat_template", "tokenize", "padding", "truncation",
        "sanitize_control_tokens", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
        "tokenizer_kwargs",
    }
)  # fmt: skip


#: The text by which templates are tried.
_PROBE = "Wv7"


@dataclass(frozen=True)
class Rendered:
    """The text of a conversation, with a mark for each of its images."""

    text: str
    images: tuple[ImagePart, ...] = ()


@dataclass(frozen=True)
class EncodedPrompt:
    """The tokens of a prompt, and its images."""

    tokens: list[int]
    images: PromptImages | None = None


class RemoteTemplate:
    """Replaces a compiled template of transformers; it renders in a separate process."""

    def __init__(self, template: str, workers: Workers) -> None:
        self._template, self._workers = template, workers

    def render(self, **values: Any) -> str:
        """The text.

        Raises:
            LimitError: the template exceeds a limit of time, memory or text.
            TemplateError: the template fails, or refuses the messages.
        """
        try:
            text: str = self._workers.do("render", template=self._template, values=values)
        except WorkFailedError as error:
            raise TemplateError(str(error)) from None
        return text


class Prompts(TokenCodec):
    """Renders and encodes with the model's own tokenizer."""

    def __init__(self, loaded: LoadedModel, workers: Workers) -> None:
        super().__init__(loaded.tokenizer, loaded.vocab_size, loaded.context_length)
        self._loaded = loaded
        # transformers compiles a template by this function; its preparation and its use of the text are unchanged.
        chat_template_utils._compile_jinja_template = lambda template: RemoteTemplate(template, workers)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        more: Mapping[str, Any] | None = None,
        *,
        may_continue: bool = True,
    ) -> Rendered:
        """The text of a conversation, ready for the next answer.

        Args:
            more: arguments of the template.
            may_continue: the answer continues a last message of the assistant.

        Raises:
            RefusedError: 400: no template, or the template's own refusal.
        """
        if self._loaded.chat_template is None:
            raise RefusedError("This model has no chat template; use /v1/completions.", param="messages")
        for name in RESERVED_OPTIONS & (more or {}).keys():
            param = f"chat_template_kwargs.{name}"
            raise RefusedError(f"{param} is not an argument of a chat template.", param=param)
        messages = without_developers(messages, self._loaded.chat_template)
        plain = plain_messages(messages, with_images=self._loaded.images is not None)
        options = {"add_generation_prompt": True, **self._loaded.template_kwargs, **(more or {})}
        last = plain.messages[-1:]
        if may_continue and last and continues(last[0]) and "add_generation_prompt" not in (more or {}):
            options |= {"add_generation_prompt": False, "continue_final_message": True}
        try:
            text = self._apply(self._readable(plain.messages), tools, options)
        except LimitError as error:
            cause = f"The model's chat template takes {error} for these messages."
            raise RefusedError(cause, code="template_limit", param="messages") from None
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RefusedError(f"{TEMPLATE_REFUSAL}{error}", param="messages") from None
        return Rendered(text, plain.images)

    def encode_chat(self, rendered: Rendered) -> EncodedPrompt:
        """Tokens of a rendered conversation, whose text contains the special tokens already, and its images.

        Raises:
            RefusedError: 400: an image cannot be decoded, or the context is too short.
        """
        encoded = self.count_chat(rendered)
        self.check_tokens(encoded.tokens, "messages")
        return encoded

    def count_chat(self, rendered: Rendered) -> EncodedPrompt:
        """The same for a conversation of any length."""
        images = self._loaded.images
        if images is None:
            return EncodedPrompt(self.encode(rendered.text, add_special=False))
        if not rendered.images:
            return EncodedPrompt(self.encode(rendered.text, add_special=images.adds_special(rendered.text)))
        return EncodedPrompt(*images.encode(rendered.text, rendered.images))

    def _apply(self, messages: Sequence[dict[str, Any]], tools: Any, options: Mapping[str, Any]) -> str:
        text: str = self._tokenizer.apply_chat_template(
            list(messages), tools=tools, chat_template=self._loaded.chat_template, tokenize=False, **options
        )
        return text

    def _readable(self, messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The messages in the form that the model's template reads: with lists of parts, or with texts alone."""
        images = self._loaded.images
        if images is None:
            return messages
        if not self._reads_parts:
            return [_text(message, images.marker) for message in messages]
        return messages if self._reads_texts else list(map(_parts, messages))

    @cached_property
    def _reads_parts(self) -> bool:
        """Whether the template writes the parts of a list, and marks images; others write the list as Python does."""
        part = {"type": "text", "text": _PROBE}
        alone, both = self._tried([part]), self._tried([dict(IMAGE), part])
        return alone is not None and both is not None and _PROBE in both and "'type'" not in both and both != alone

    @cached_property
    def _reads_texts(self) -> bool:
        """Whether the template writes a content that is a text."""
        return _PROBE in (self._tried(_PROBE) or "")

    def _tried(self, content: Any) -> str | None:
        """A message by the template; None: the template refuses it.

        Raises:
            LimitError: the template exceeds a limit, so nothing is known of it.
        """
        options = {"add_generation_prompt": True, **self._loaded.template_kwargs}
        try:
            return self._apply([{"role": "user", "content": content}], None, options)
        except (TemplateError, TypeError, ValueError, KeyError):
            return None

    def encode_prompts(self, prompt: str | list[Any]) -> list[list[int]]:
        """Tokens of each prompt of a completion: text, texts, token ids, or lists of them."""
        items = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
        if len({type(item) for item in items}) > 1:
            raise RefusedError("prompt mixes texts and tokens: all its items must be of one kind.", param="prompt")
        return [self._encode_one(item) for item in items]

    def _encode_one(self, item: str | list[int]) -> list[int]:
        if isinstance(item, list) and not all(isinstance(token, int) for token in item):
            raise RefusedError("prompt mixes texts and tokens: all its items must be of one kind.", param="prompt")
        return self.check_tokens(self.encode(item, add_special=True) if isinstance(item, str) else item, "prompt")


def continues(last: Mapping[str, Any]) -> bool:
    """Whether the answer continues this last message of a conversation, as on llama.cpp."""
    return last.get("role") == "assistant" and bool(last.get("content")) and not last.get("tool_calls")


def _parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose content is a list of parts."""
    content = message["content"]
    return {**message, "content": [{"type": "text", "text": content}] if isinstance(content, str) else content}


def _text(message: Mapping[str, Any], marker: str) -> dict[str, Any]:
    """A message whose content is a text, with the model's mark in place of each image."""
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    return {**message, "content": "".join(part.get("text", f"{marker}\n") for part in content)}
