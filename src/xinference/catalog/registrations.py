"""Parses a user's model registration, the JSON of both Xinference versions, into a `ModelFamily`.

Version 1 (before 1.0) has lists of quantizations and a prompt style, version 2 one quantization a spec and a chat
template. Documents mix both, so every field is accepted in either version. Pure: reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from xinference.catalog.check import ABILITIES, MODEL_NAME, check_family
from xinference.catalog.custom_specs import read_specs
from xinference.catalog.fields import Fields, bad_field, one_of
from xinference.catalog.models import ModelFamily, ModelType
from xinference.catalog.prompt_styles import STYLES, PromptStyle, style_of_family, template_of
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, join_names, near

MODEL_TYPES: tuple[ModelType, ...] = ("LLM", "embedding", "rerank")
#: Maximum length of a name, which becomes a file's name and the default uid.
MAX_NAME = 100
#: Default context length in tokens (version 1's default).
DEFAULT_CONTEXT = 2048
#: Default input length in tokens of embedding models and rerankers.
DEFAULT_MAX_TOKENS = 512
_COMMON = (
    "version", "model_name", "model_description", "model_specs", "is_builtin", "model_type", "virtualenv",
    "cache_config", "featured", "updated_at", "model_hub", "model_id", "model_revision", "model_uri",
)  # fmt: skip
_LLM = (
    *_COMMON, "context_length", "model_lang", "model_ability", "model_family", "prompt_style", "chat_template", "stop",
    "stop_token_ids", "reasoning_start_tag", "reasoning_end_tag", "tool_parser", "architectures", "tool_config",
    "strict_system_first", "generation_config",
)  # fmt: skip
_POOLING = (*_COMMON, "dimensions", "max_tokens", "language", "type", "model_format", "quantization", "quantizations")


@dataclass(frozen=True)
class Registration:
    """A registered model."""

    family: ModelFamily
    document: Mapping[str, Any]
    """The JSON as the user wrote it."""
    notes: tuple[str, ...] = ()
    """The ignored fields, with the reasons."""


def model_type_of(name: str) -> ModelType:
    """The model type for a name, case-insensitive.

    Raises:
        Problem: 400 ``Unsupported model type``.
    """
    for known in MODEL_TYPES:
        if known.lower() == name.strip().lower():
            return known
    raise bad_request(f"Unsupported model type: {name}.", hint=f"The types are {', '.join(MODEL_TYPES)}.")


def read_registration(model_type: ModelType, text: str | bytes, builtin: Mapping[str, ModelFamily]) -> Registration:
    """Parse one document; `builtin` are the families that it may refer to.

    Raises:
        Problem: 400 ``invalid_registration``, which names the field, its value and a fix.
    """
    fields = Fields(_decode(text))
    notes: list[str] = []
    version = fields.raw("version")
    if version not in (None, 1, 2) or isinstance(version, bool):
        raise fields.bad("version", "is not supported", "Use 1 or 2, or leave it out.")
    family = _llm(fields, builtin, notes) if model_type == "LLM" else _pooling(fields, model_type, notes)
    # The remaining checks are the same as for built-in entries.
    check_family(family, family.model_name)
    document: dict[str, Any] = {name: fields.raw(name) for name in fields.items()}
    return Registration(family, document, tuple(notes))


def _decode(text: str | bytes) -> object:
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Problem(
            Code.INVALID_REGISTRATION, f"The model is not JSON: {error}.", hint="Pass one JSON object as a string."
        ) from None
    if isinstance(value, list) and len(value) == 1:  # the form of Xinference's own files
        return value[0]
    return value


def _name(fields: Fields) -> str:
    name = fields.text("model_name", "Set the name by which the model is launched.")
    if not MODEL_NAME.fullmatch(name) or name.startswith((".", "-")) or len(name.encode()) > MAX_NAME:
        raise Problem(
            Code.INVALID_REGISTRATION,
            f"model_name: Invalid model name {name[:MAX_NAME]!r}.",
            hint=f"Use 1 to {MAX_NAME} bytes without a space or any of + / \\ ? % # & =, not beginning with . or -.",
        )
    return name


# -- language models ----------------------------------------------------------------------------------------


def _llm(fields: Fields, builtin: Mapping[str, ModelFamily], notes: list[str]) -> ModelFamily:
    fields.check_names(_LLM)
    name = _name(fields)
    abilities = _abilities(fields)
    if not fields.has("model_family"):
        raise Problem(
            Code.INVALID_REGISTRATION,
            "You must specify `model_family` when registering custom LLM models.",
            hint='Use a similar built-in model, or "other".',
        )
    like = builtin.get(fields.text("model_family"))
    stop, stop_ids = fields.texts("stop"), fields.counts("stop_token_ids")
    prompt = _prompt(fields, like, builtin, chats="chat" in abilities)
    tags = (fields.optional_text("reasoning_start_tag"), fields.optional_text("reasoning_end_tag"))
    return ModelFamily(
        model_name=name,
        context_length=fields.optional_count("context_length") or DEFAULT_CONTEXT,
        model_lang=fields.texts("model_lang"),
        model_ability=abilities,
        model_specs=read_specs(fields, like, notes),
        model_description=fields.optional_text("model_description") or "",
        chat_template=prompt.template,
        stop=stop or prompt.stop,
        stop_token_ids=stop_ids or prompt.stop_token_ids,
        # A model of a known family writes its calls in the same form.
        tool_parser=fields.optional_text("tool_parser") or (like.tool_parser if like else None),
        reasoning_tags=(tags[0], tags[1]) if tags[0] and tags[1] else None,
    )


def _abilities(fields: Fields) -> tuple[str, ...]:
    values = fields.texts("model_ability")
    if not values:
        raise fields.missing("model_ability", 'Use a list such as ["chat"] or ["generate"].')
    for position, ability in enumerate(values):
        if ability not in ABILITIES:
            close = near(ability, ABILITIES)
            hint = f"Did you mean {join_names(close)}?" if close else f"Use some of {', '.join(ABILITIES)}."
            raise bad_field(f"{fields.at('model_ability')}[{position}]", ability, "is not an ability", hint)
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class _Prompt:
    """The template of a chat with its stop texts and tokens, which those of the document replace."""

    template: str | None
    """None: the template in the weights."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, family: ModelFamily) -> _Prompt:
        return cls(family.chat_template, family.stop, family.stop_token_ids)


def _prompt(fields: Fields, like: ModelFamily | None, builtin: Mapping[str, ModelFamily], *, chats: bool) -> _Prompt:
    """The first of: the document's template, its style, the prompt of the similar model, the style of its family."""
    if fields.has("chat_template"):
        return _written_template(fields, builtin)
    if isinstance(fields.raw("prompt_style"), str):
        return _named_style(fields, fields.text("prompt_style"), builtin)
    values = fields.object("prompt_style")
    if values is not None:
        template = template_of(_style(values))
        assert template is not None
        return _Prompt(template, values.texts("stop"), values.counts("stop_token_ids"))
    if like is not None:
        return _Prompt.of(like) if chats else replace(_Prompt.of(like), template=None)
    family = fields.text("model_family")
    return _Prompt(_family_template(fields, family, builtin) if chats and family != "other" else None)


def _written_template(fields: Fields, builtin: Mapping[str, ModelFamily]) -> _Prompt:
    """A Jinja template, or the template of the built-in model that is named in its place."""
    text = fields.text("chat_template", "Set a Jinja template or a built-in model's name, or leave it out.")
    named = builtin.get(text.strip())
    if named is not None:
        return _Prompt.of(named)
    if "{{" not in text and "{%" not in text:
        raise fields.bad(
            "chat_template", "is neither a Jinja template nor a built-in model's name", _near_names(text, builtin)
        )
    return _Prompt(text)


def _named_style(fields: Fields, name: str, builtin: Mapping[str, ModelFamily]) -> _Prompt:
    family = builtin.get(name)
    if family is not None and family.chat_template is not None:
        return _Prompt.of(family)
    style = PromptStyle(name) if name.upper() in STYLES else style_of_family(name)
    if style is None:
        raise fields.bad("prompt_style", "is an unknown prompt style type", _near_names(name, builtin))
    return _Prompt(template_of(style))


def _family_template(fields: Fields, family: str, builtin: Mapping[str, ModelFamily]) -> str | None:
    """The template of the style of a family that is not built in."""
    known = style_of_family(family)
    if known is None:
        names = ", ".join(sorted(name for name, each in builtin.items() if "chat" in each.model_ability))
        raise Problem(
            Code.INVALID_REGISTRATION,
            f"model_family is {family!r}, and `model_family` for chat model must be `other` or one of the following "
            f"values: {names}.",
            hint='Use "other" for the template in the weights, or add a chat_template.',
        )
    # The template of the weights, if any, has precedence: the name only shows that this is a chat model.
    return None if fields.raw("version") == 2 else template_of(known)


def _style(values: Fields) -> PromptStyle:
    name = one_of(values, "style_name", values.text("style_name", f"It is one of {', '.join(STYLES)}."), STYLES)
    roles = values.texts("roles")
    if name in ("ADD_COLON_SINGLE", "ADD_COLON_TWO", "NO_COLON_SINGLE", "NO_COLON_TWO") and len(roles) < 2:
        raise values.bad("roles", "does not have the user's and the assistant's role", 'Use ["USER", "ASSISTANT"].')
    system = values.optional_text("system_prompt") or ""
    if name == "INSTRUCTION" and "{0}" not in system and "{}" not in system:
        raise values.bad("system_prompt", "has no placeholder {0} for the question")
    return PromptStyle(
        style_name=name,
        system_prompt=system,
        roles=roles,
        intra_message_sep=values.optional_text("intra_message_sep") or "",
        inter_message_sep=values.optional_text("inter_message_sep") or "",
    )


def _near_names(name: str, builtin: Mapping[str, ModelFamily]) -> str:
    close = near(name, [*STYLES, *builtin])
    if close:
        return f"Did you mean {join_names(close)}?"
    return f"Set the template as chat_template, or one of the styles {', '.join(STYLES)}."


# -- embeddings and rerank ----------------------------------------------------------------------------------


def _pooling(fields: Fields, model_type: ModelType, notes: list[str]) -> ModelFamily:
    fields.check_names(_POOLING)
    name = _name(fields)
    dimensions = fields.optional_count("dimensions") if model_type == "embedding" else None
    if model_type == "rerank":
        fields.optional_text("type")
    return ModelFamily(
        model_name=name,
        model_type=model_type,
        context_length=fields.optional_count("max_tokens") or DEFAULT_MAX_TOKENS,
        model_lang=fields.texts("language"),
        dimensions=dimensions,
        model_ability=("embed" if model_type == "embedding" else "rerank",),
        model_specs=read_specs(_with_specs(fields), None, notes, sized=False),
        model_description=fields.optional_text("model_description") or "",
    )


def _with_specs(fields: Fields) -> Fields:
    """Move the fields of a version 1 file's only spec, which are among the fields of the family, to a list of specs."""
    if fields.has("model_specs"):
        return fields
    names = ("model_hub", "model_id", "model_revision", "model_uri", "model_format", "quantization", "quantizations")
    spec = {name: fields.raw(name) for name in names if fields.has(name)}
    return Fields({"model_specs": [{"model_format": "pytorch", **spec}]}, fields.path)
