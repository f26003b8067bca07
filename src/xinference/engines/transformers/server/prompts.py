"""Converts messages or text to the tokens of the prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers.utils import chat_template_utils

from .errors import RefusedError
from .limited import LimitError, Workers, WorkFailedError
from .loading import LoadedModel
from .token_codec import TokenCodec

#: The prefix of a chat template's own refusal, which the gateway recognises.
TEMPLATE_REFUSAL = "Jinja Exception: "


#: Arguments of `apply_chat_template` itself, which a request does not set.
RESERVED_OPTIONS = frozenset(
    {
        "conversation", "tools", "documents", "chat_template", "tokenize", "sanitize_control_tokens", "padding",
        "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
    }
)  # fmt: skip


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
    ) -> str:
        """The text of a conversation, ready for the next answer.

        Raises:
            RefusedError: 400: no template, or the template's own refusal.
        """
        template = self._loaded.chat_template
        if template is None:
            raise RefusedError("This model has no chat template; use /v1/completions.", param="messages")
        for name in RESERVED_OPTIONS & (more or {}).keys():
            param = f"chat_template_kwargs.{name}"
            raise RefusedError(f"{param} is not an argument of a chat template.", param=param)
        plain = [_plain(message, i) for i, message in enumerate(messages)]
        options = {"add_generation_prompt": True, **self._loaded.template_kwargs, **(more or {})}
        if plain and continues(plain[-1]) and "add_generation_prompt" not in (more or {}):
            options |= {"add_generation_prompt": False, "continue_final_message": True}
        try:
            text: str = self._tokenizer.apply_chat_template(
                plain, tools=tools, chat_template=template, tokenize=False, **options
            )
        except LimitError as error:
            cause = f"The model's chat template takes {error} for these messages."
            raise RefusedError(cause, code="template_limit", param="messages") from None
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RefusedError(f"{TEMPLATE_REFUSAL}{error}", param="messages") from None
        return text

    def encode_chat(self, text: str) -> list[int]:
        """Tokens of a rendered conversation, whose text contains the special tokens already."""
        return self.check_tokens(self.encode(text, add_special=False), "messages")

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


def _plain(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A message as templates expect it: text as one string, arguments of calls as objects."""
    if not isinstance(message.get("role"), str):
        raise RefusedError(f"messages[{index}].role is required.", param=f"messages[{index}].role")
    plain = dict(message)
    content = message.get("content")
    if isinstance(content, list):
        plain["content"] = "".join(_text(part, index) for part in content)
    elif content is None:
        plain["content"] = ""
    elif not isinstance(content, str):
        raise RefusedError(f"messages[{index}].content: text is expected.", param=f"messages[{index}].content")
    if isinstance(message.get("tool_calls"), list):
        plain["tool_calls"] = [_with_object(call) for call in message["tool_calls"]]
    return plain


def _text(part: Any, index: int) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise RefusedError(f"messages[{index}].content: this model accepts only text.", param=f"messages[{index}].content")


def _with_object(call: Any) -> Any:
    try:
        return {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
    except (TypeError, KeyError, ValueError):
        return call
