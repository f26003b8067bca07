"""Checks the engines' own fields that have a constraint of an answer."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.protocol.constraint_limits import MAX_VALUES, limit_refusal
from xinference.protocol.errors import Refusal
from xinference.protocol.grammar_limits import check_grammar
from xinference.protocol.regex_limits import check_regex
from xinference.protocol.schema_limits import SchemaLimits


def check_constraint_fields(fields: dict[str, Any]) -> None:
    """Check the engines' own fields with a constraint.

    Raises:
        Refusal: 400, with the field and the limit.
    """
    limits = SchemaLimits()
    for name, value in fields.items():
        if name == "structured_outputs" and isinstance(value, dict):
            for inner, constraint in value.items():
                _check_field(_STRUCTURED.get(inner, ""), constraint, f"{name}.{inner}", limits)
        elif name in _FIELDS:
            _check_field(_FIELDS[name], value, name, limits)


def check_one_constraint(fields: dict[str, Any]) -> None:
    """Check that a request has one constraint of the answer: an engine would apply one of them only.

    Raises:
        Refusal: 400, with two of them.
    """
    given = [name for name in _ONE_OF if name in fields and _is_constraint(name, fields[name])]
    if len(given) > 1:
        cause = f"{given[1]}: the request has {given[0]}, too, and an answer has one constraint."
        raise Refusal(Code.INVALID_REQUEST, cause, hint="Leave one of them out.", param=given[1])


def _is_constraint(name: str, value: Any) -> bool:
    if name == "response_format":
        return isinstance(value, dict) and value.get("type") not in (None, "text")
    return constrains(name, value) or (name == "guided_json" and value == {})


_ONE_OF = (
    "response_format", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_json_object",
    "structured_outputs", "json_schema", "grammar", "regex", "ebnf",
)  # fmt: skip
_FIELDS = {"grammar": "grammar", "ebnf": "grammar", "regex": "regex", "stop_regex": "regex", "json_schema": "schema"}
#: The engines' own fields with a constraint of an answer; each engine has some of them.
CONSTRAINTS = frozenset({"structured_outputs", *_FIELDS})
#: Further fields that change which text is an answer, under the names of engines and of other servers -> what to use in
#: their place. An engine that does not read one of them would answer another request.
_SAMPLERS = (
    "dry_multiplier", "dynatemp_range", "epsilon_cutoff", "eta_cutoff", "mirostat", "mirostat_mode", "penalty_alpha",
    "samplers", "tfs", "tfs_z", "top_a", "top_n_sigma", "typ_p", "typical_p", "xtc_probability",
)  # fmt: skip
EFFECTS: dict[str, str | None] = {
    **dict.fromkeys(_SAMPLERS, "Use temperature, top_p, top_k or min_p."),
    "allowed_token_ids": "Use response_format or logit_bias.",
    "bad_words": "Use logit_bias.",
    "best_of": "Ask for several answers by n.",
    "chat_template": "Launch the model with its chat template.",
    "context": "Send the whole conversation.",
    "do_sample": "Use temperature 0.",
    "documents": "Put the documents into a message.",
    "echo": None,
    "extra_body": "Send its fields beside model.",
    "format": "Use response_format.",
    "functions": None,
    "generate_config": "Send its fields beside model.",
    "images": "Send images as parts of a message.",
    "include_reasoning": None,
    "include_stop_str_in_output": None,
    "input": "Use messages, or prompt on /v1/completions.",
    "input_extra": "Put the texts into the prompt, or use /infill.",
    "logits_processors": None,
    "max_completion_tokens": "Use max_tokens.",
    "max_new_tokens": "Use max_tokens.",
    "mcp_servers": "Connect to them in the client, and send their tools.",
    "messages": "Use /v1/chat/completions.",
    "min_new_tokens": None,
    "min_tokens": None,
    "moderation": "Leave it out: answers are not moderated here.",
    "n_cmpl": "Use n.",
    "n_predict": "Use max_tokens.",
    "no_stop_trim": None,
    "num_beams": None,
    "num_predict": "Use max_tokens.",
    "options": "Send its fields beside model.",
    "plugins": None,
    "prompt": "Send it as a message.",
    "prompt_logprobs": None,
    "random_seed": "Use seed.",
    "raw": "Use /v1/completions.",
    "repeat_penalty": "Use repetition_penalty.",
    "separate_reasoning": None,
    "skip_special_tokens": None,
    "stop_sequences": "Use stop.",
    "structural_tag": "Use response_format.",
    "suffix": None,
    "system": "Send it as a message of the role system.",
    "template": "Launch the model with its chat template.",
    "tool_choice": "Use /v1/chat/completions.",
    "tools": "Use /v1/chat/completions.",
    "top_logprobs": "Use logprobs.",
    "truncate_prompt_tokens": "Send a shorter prompt.",
    "use_beam_search": None,
}
#: The same for prompts.
PROMPT_EFFECTS: dict[str, str | None] = {
    "add_special": "Send the prompt as a list of token ids.",
    "add_special_tokens": "Send the prompt as a list of token ids.",
}
#: The same for vectors.
VECTOR_EFFECTS: dict[str, str | None] = {
    "add_special_tokens": None,
    "embd_normalize": "Scale the vectors in the client.",
    "embedding_type": "Use encoding_format.",
    "embedding_types": "Use encoding_format.",
    "extra_body": "Send its fields beside model.",
    "images": None,
    "input_type": "Put the prompt of the model before each text.",
    "instruction": "Put the instruction before each text.",
    "late_chunking": None,
    "messages": "Send texts in input.",
    "modality": "Send texts.",
    "normalize": None,
    "normalize_embeddings": None,
    "normalized": None,
    "output_dimension": "Use dimensions.",
    "output_dtype": None,
    "pooling": "Launch the model with its pooling.",
    "prefix": "Put it before each text.",
    "prompt_name": "Put the prompt before each text.",
    "return_sparse": None,
    "task": "Put the prompt of the model before each text.",
}
#: The same for the ranking of documents.
RANK_EFFECTS: dict[str, str | None] = {
    "extra_body": "Send its fields beside model.",
    "instruction": "Put the instruction before the query.",
    "rank_fields": "Send each document as one text.",
    "raw_scores": None,
    "return_text": "Use return_documents.",
    "top_k": "Use top_n.",
}


#: Values of these fields with which an answer is the same, as some clients send them by default: -1 is no limit.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "embd_normalize": (2,),
    "embedding_type": ("float",),
    "embedding_types": (["float"],),
    "max_new_tokens": (-1,),
    "modality": ("text",),
    "n_cmpl": (1,),
    "n_predict": (-1,),
    "num_beams": (1,),
    "num_predict": (-1,),
    "output_dtype": ("float",),
    "rank_fields": (["text"],),
    "repeat_penalty": (1,),
    "tfs": (1,),
    "tfs_z": (1,),
    "tool_choice": ("none", "auto"),
    "top_n_sigma": (-1,),
    "truncate_prompt_tokens": (-1,),
    "typ_p": (1,),
    "typical_p": (1,),
}


#: Switches that are on by default, so that only `false` changes an answer.
_SWITCHED_ON = frozenset(
    {
        "add_special", "add_special_tokens", "do_sample", "include_reasoning", "normalize", "normalize_embeddings",
        "normalized", "separate_reasoning", "skip_special_tokens",
    }
)  # fmt: skip


def has_effect(name: str, value: Any) -> bool:
    """Whether this value of one of the fields of `EFFECTS` changes an answer."""
    if name in _SWITCHED_ON:
        return value is False
    return bool(value) and value not in _WITHOUT_EFFECT.get(name, ())


def constrains(name: str, value: Any) -> bool:
    """Whether this value of one of `CONSTRAINTS` constrains an answer; the schema `{}` asks for JSON."""
    return bool(value) or (name == "json_schema" and value == {})


_STRUCTURED = {
    "json": "schema", "structural_tag": "schema", "grammar": "grammar", "regex": "regex", "choice": "choice",
    "whitespace_pattern": "regex",
}  # fmt: skip


def _check_field(kind: str, value: Any, where: str, limits: SchemaLimits) -> None:
    if kind == "grammar" and isinstance(value, str):
        check_grammar(value, where)
    elif kind == "regex":
        for regex in value if isinstance(value, list) else [value]:
            if isinstance(regex, str):
                limits.expanded = check_regex(regex, where, limits.expanded)
    elif kind == "schema" and isinstance(value, str):
        limits.check_text(value, where)
    elif kind == "schema":
        limits.check_json(msgspec.json.encode(value), where)
    elif kind == "choice" and isinstance(value, list) and len(value) > MAX_VALUES:
        raise limit_refusal(where, "choices", MAX_VALUES)
