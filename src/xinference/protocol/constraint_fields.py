"""Checks the engines' own fields that have a constraint of an answer."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.protocol.constraint_limits import MAX_VALUES, limit_refusal
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


_FIELDS = {"grammar": "grammar", "ebnf": "grammar", "regex": "regex", "stop_regex": "regex", "json_schema": "schema"}
#: The engines' own fields with a constraint of an answer; each engine has some of them.
CONSTRAINTS = frozenset({"structured_outputs", *_FIELDS})
#: Further fields that change which text is an answer, under the names of engines and of other servers -> what to use in
#: their place. An engine that does not read one of them would answer another request.
_SAMPLERS = (
    "dry_multiplier", "dynatemp_range", "epsilon_cutoff", "eta_cutoff", "mirostat", "mirostat_mode", "penalty_alpha",
    "tfs", "tfs_z", "top_a", "top_n_sigma", "typ_p", "typical_p", "xtc_probability",
)  # fmt: skip
EFFECTS: dict[str, str | None] = {
    **dict.fromkeys(_SAMPLERS, "Use temperature, top_p, top_k or min_p."),
    "allowed_token_ids": "Use response_format or logit_bias.",
    "bad_words": "Use logit_bias.",
    "best_of": "Ask for several answers by n.",
    "chat_template": "Launch the model with its chat template.",
    "documents": "Put the documents into a message.",
    "echo": None,
    "format": "Use response_format.",
    "functions": None,
    "generate_config": "Send its fields beside model.",
    "include_stop_str_in_output": None,
    "logits_processors": None,
    "max_new_tokens": "Use max_tokens.",
    "mcp_servers": "Connect to them in the client, and send their tools.",
    "min_new_tokens": None,
    "min_tokens": None,
    "moderation": "Leave it out: answers are not moderated here.",
    "n_predict": "Use max_tokens.",
    "num_beams": None,
    "num_predict": "Use max_tokens.",
    "options": "Send its fields beside model.",
    "prompt_logprobs": None,
    "random_seed": "Use seed.",
    "stop_sequences": "Use stop.",
    "structural_tag": "Use response_format.",
    "suffix": None,
    "system": "Send it as a message of the role system.",
    "tool_choice": "Use /v1/chat/completions.",
    "tools": "Use /v1/chat/completions.",
    "truncate_prompt_tokens": "Send a shorter prompt.",
    "use_beam_search": None,
}
#: The same for vectors.
VECTOR_EFFECTS: dict[str, str | None] = {
    "embedding_type": "Use encoding_format.",
    "embedding_types": "Use encoding_format.",
    "input_type": "Put the prompt of the model before each text.",
    "instruction": "Put the instruction before each text.",
    "late_chunking": None,
    "modality": "Send texts.",
    "output_dimension": "Use dimensions.",
    "output_dtype": None,
    "prefix": "Put it before each text.",
    "prompt_name": "Put the prompt before each text.",
    "return_sparse": None,
    "task": "Put the prompt of the model before each text.",
}
#: The same for the ranking of documents.
RANK_EFFECTS: dict[str, str | None] = {
    "instruction": "Put the instruction before the query.",
    "rank_fields": "Send each document as one text.",
    "raw_scores": None,
    "top_k": "Use top_n.",
}


#: Values of these fields with which an answer is the same, as some clients send them by default: -1 is no limit.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "embedding_type": ("float",),
    "embedding_types": (["float"],),
    "max_new_tokens": (-1,),
    "modality": ("text",),
    "n_predict": (-1,),
    "num_beams": (1,),
    "num_predict": (-1,),
    "output_dtype": ("float",),
    "rank_fields": (["text"],),
    "tfs": (1,),
    "tfs_z": (1,),
    "tool_choice": ("none", "auto"),
    "top_n_sigma": (-1,),
    "truncate_prompt_tokens": (-1,),
    "typ_p": (1,),
    "typical_p": (1,),
}


def has_effect(name: str, value: Any) -> bool:
    """Whether this value of one of the fields of `EFFECTS` changes an answer."""
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
