"""Derives a model family from the facts in its files, with a reason for each field. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec, ModelType, Source, written_size
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.launch.request import LaunchRequest
from xinference.weights.model_facts import ModelFacts

_SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s*([BbMm])(?![A-Za-z0-9])")
_NOT_IN_NAMES = re.compile(r"[+/?%#&=\s\\\x00-\x1f\x7f]+")
_MAX_NAME = 100
#: A larger number in a name is not a model size.
_MAX_SIZE_IN_NAME = 10_000
#: llama-server's name for the context option, in addition to each engine's own.
_CONTEXT_ALIAS = "ctx_size"
#: Text that a template writes around a tool call -> its parser, by vLLM's names. Only texts that one parser reads.
_TOOL_FORMS = (
    ("<tool_call>\n<function=", "qwen3_coder"),
    ("<seed:tool_call>", "seed_oss"),
    ("<function=", "qwen3_coder"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ("<minimax:tool_call>", "minimax_m2"),
    ("<arg_key>", "glm45"),
    ("<|action_start|>", "internlm"),
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("<|tool_call_start|>", "lfm2"),
    ("<|channel|>commentary", "openai"),
    ("｜DSML｜function_calls", "deepseek_v32"),
    ("｜DSML｜tool_calls", "deepseek_v4"),
    ("<|tool_call>call:", "gemma4"),
    ("<tool_call>", "hermes"),
)
#: DeepSeek's mark of a call, whose arguments are in a block of JSON in the first of the two forms.
_DEEPSEEK_CALL = "<｜tool▁call▁begin｜>"


@dataclass(frozen=True)
class DerivedFamily:
    """A family derived from files, with the reasons."""

    family: ModelFamily
    reasons: tuple[str, ...]


def derive_family(
    facts: ModelFacts, name: str, title: str, source: Source, quantizations: tuple[str, ...], request: LaunchRequest
) -> DerivedFamily:
    """The family of the model with these `facts`; `title` is its name in messages. The request sets unknown fields.

    Raises:
        Problem: 400: a field that can't be derived, with the flag that sets it; or why the model can't run.
    """
    _check_runnable(facts, title, request)
    reasons = [f"{title}: no model of this name is known, so its fields are derived from its files"]
    model_type = _model_type(facts, title, request, reasons)
    context = _context(facts, title, request, reasons)
    template = facts.chat_template if model_type == "LLM" else None
    abilities = _abilities(facts, model_type, template, reasons)
    parser = _tool_parser(template) if "tools" in abilities else None
    if parser:
        reasons.append(f"tool calls are read as {parser}: the format in its chat template")
    if facts.stop_token_ids and model_type == "LLM":
        reasons.append(f"stop tokens {', '.join(map(str, facts.stop_token_ids))}: the end-of-text tokens in its files")
    spec = ModelSpec(
        model_format=facts.model_format,
        model_size_in_billions=_size(facts, name, title, request, reasons),
        quantizations=quantizations,
        sources=(source,),
        shape=facts.shape,
    )
    family = ModelFamily(
        model_name=name,
        context_length=context,
        model_lang=(),
        model_ability=abilities,
        model_specs=(spec,),
        model_description=f"Derived from {title}.",
        model_type=model_type,
        dimensions=facts.dimensions if model_type == "embedding" else None,
        architectures=(facts.architecture,) if facts.model_format != "ggufv2" else (),
        stop_token_ids=facts.stop_token_ids if model_type == "LLM" else (),
        tool_parser=parser,
        # Hybrid models write both tags; the template of another model may put the opening tag into the prompt.
        reasoning_tags=("<think>", "</think>") if "hybrid" in abilities and "<think>" in (template or "") else None,
    )
    return DerivedFamily(family, tuple(reasons))


def valid_name(text: str, taken: Collection[str]) -> str:
    """A valid model name from the name of a file or repository, different from the `taken` ones.

    >>> valid_name("my model+.v1", ())
    'my-model-.v1'
    """
    name = _NOT_IN_NAMES.sub("-", text).strip("-.") or "model"
    name = name.encode()[:_MAX_NAME].decode("utf-8", "ignore")
    lowered = {each.lower() for each in taken}
    return f"{name[: _MAX_NAME - 7]}-custom" if name.lower() in lowered else name


def billions(parameters: float) -> int | str:
    """A number of parameters in the notation of registries.

    >>> [billions(count) for count in (134_515_008, 1.7e9, 6.74e9, 13.2e9)]
    ['0_135', '1_7', '6_7', 13]
    """
    count = parameters / 1e9
    text = f"{count:.0f}" if count >= 10 else f"{count:.1f}" if count >= 1 else f"{count:.3f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return int(text) if text.isdecimal() and int(text) else text.replace(".", "_") if float(text) else "0_001"


def _check_runnable(facts: ModelFacts, title: str, request: LaunchRequest) -> None:
    spec = ModelSpec(
        model_format=facts.model_format, model_size_in_billions=0, quantizations=(facts.quantization,), sources=()
    )
    if not any(engine.table.supports(spec, facts.quantization) for engine in all_engines().values()):
        packed = "MLX" if facts.model_format == "mlx" else facts.quantization
        raise bad_request(
            f"The weights of {title} are packed by {packed}, which no engine here supports.",
            hint="Use the weights as trained, or a version in GGUF, GPTQ, AWQ or 8-bit floats.",
            code=Code.ENGINE_UNSUPPORTED,
        )
    trust: Any = request.options.get("trust_remote_code")
    if facts.remote_code and trust is None:
        raise Problem(
            Code.REMOTE_CODE,
            f"{title} contains its own Python code (auto_map in its config.json), which would be executed here.",
            hint="Read it, and if you trust it, launch with --trust_remote_code true. With --trust_remote_code false "
            "the engine's own code for this architecture is used, if it has any.",
        )


def _model_type(facts: ModelFacts, title: str, request: LaunchRequest, reasons: list[str]) -> ModelType:
    requested = request.model_type.lower()
    if requested in ("embedding", "rerank"):
        reasons.append(f"type {requested}: set by the request")
        return "embedding" if requested == "embedding" else "rerank"
    if facts.reranks:
        reasons.append(f"type rerank: {facts.architecture} returns one score")
        return "rerank"
    if facts.embeds:
        reasons.append(f"type embedding: {facts.architecture} is an embedding model")
        return "embedding"
    if facts.generates:
        reasons.append(f"type LLM: {facts.architecture} generates text")
        return "LLM"
    raise Problem(
        Code.MODEL_TYPE_NEEDED,
        f"The purpose of the architecture {facts.architecture} of {title} is unknown.",
        hint="Set it with --model-type: embedding or rerank. Models of other kinds are not served.",
    )


def _context(facts: ModelFacts, title: str, request: LaunchRequest, reasons: list[str]) -> int:
    if facts.context_length:
        reasons.append(f"context {facts.context_length} tokens: the trained context in its files")
        return facts.context_length
    engines = _engines_by_context_option()
    for name in (*engines, _CONTEXT_ALIAS):
        value = request.options.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            reasons.append(f"context {value} tokens: set by --{name}")
            return value
    raise Problem(
        Code.CONTEXT_LENGTH_NEEDED,
        f"The files of {title} do not contain its context length.",
        hint=f"Set it with {' or '.join(f'--{option} ({names})' for option, names in engines.items())}.",
    )


def _engines_by_context_option() -> dict[str, str]:
    engines: dict[str, list[str]] = {}
    for name, engine in all_engines().items():
        engines.setdefault(engine.memory.context_option, []).append(name)
    return {option: ", ".join(names) for option, names in engines.items()}


def _abilities(facts: ModelFacts, model_type: str, template: str | None, reasons: list[str]) -> tuple[str, ...]:
    if model_type != "LLM":
        return ("embed",) if model_type == "embedding" else ("rerank",)
    if template is None:
        reasons.append("abilities generate: it has no chat template")
        return ("generate",)
    abilities = {"chat": "it has a chat template"}
    if re.search(r"\btools\b", template):
        abilities["tools"] = "the template supports tools"
    if "<think>" in template or "enable_thinking" in template:
        abilities["reasoning"] = "the template contains <think>"
    if "enable_thinking" in template:
        abilities["hybrid"] = "the template has enable_thinking"
    if facts.vision:
        abilities["vision"] = "its config.json has a vision_config"
    reasons.append(f"abilities {', '.join(abilities)}: {', '.join(abilities.values())}")
    return tuple(abilities)


def _tool_parser(template: str | None) -> str | None:
    text = template or ""
    if _DEEPSEEK_CALL in text:
        return "deepseek_v3" if "```json" in text else "deepseek_v31"
    return next((parser for form, parser in _TOOL_FORMS if form in text), None)


def _size(facts: ModelFacts, name: str, title: str, request: LaunchRequest, reasons: list[str]) -> int | str:
    if request.model_size_in_billions is not None:
        return request.model_size_in_billions
    for text, reason in ((name, "by its name"), (facts.size_label or "", "by the file's own label")):
        match = _SIZE_IN_NAME.search(text)
        if match is not None and 0 < float(match[1]) < _MAX_SIZE_IN_NAME:
            size = billions(float(match[1]) * (1e9 if match[2] in "bB" else 1e6))
            reasons.append(f"size {written_size(size)}: {reason}")
            return size
    if facts.parameters:
        size = billions(facts.parameters)
        reasons.append(f"size {written_size(size)}: from the weights in its files")
        return size
    raise Problem(
        Code.SIZE_NEEDED,
        f"Neither the name nor the files of {title} contain its size.",
        hint="Set it with --size-in-billions, such as 7 or 1_8.",
    )
