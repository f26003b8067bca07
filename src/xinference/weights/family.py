"""From what the files say to a family, with the reason of each fact. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from xinference.catalog.models import ModelFamily, ModelSpec, Source
from xinference.engines.registry import all_engines
from xinference.errors import Problem, bad_request
from xinference.launch.request import LaunchRequest
from xinference.weights.model_facts import Evidence

_SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s*([BbMm])(?![A-Za-z0-9])")
_NOT_IN_NAMES = re.compile(r"[+/?%#&=\s\\\x00-\x1f\x7f]+")
_MAX_NAME = 100
#: A larger number in a name is no size.
_MOST_IN_NAME = 10_000
#: llama-server's name for the context option, in addition to each engine's own.
_CONTEXT_ALIAS = "ctx_size"
#: What a template writes around a tool call -> who reads that, by vLLM's names. Only forms that are one parser's.
_TOOL_FORMS = (
    ("<tool_call>\n<function=", "qwen3_coder"),
    ("<function=", "qwen3_coder"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ("<tool_call>", "hermes"),
)
#: Ways to pack weights that no engine here is known to take.
_TAKEN = ("none", "4-bit", "8-bit")


@dataclass(frozen=True)
class Derived:
    """A family that nobody described."""

    family: ModelFamily
    reasons: tuple[str, ...]


def derive_family(
    evidence: Evidence, name: str, title: str, source: Source, quantizations: tuple[str, ...], request: LaunchRequest
) -> Derived:
    """The family of `evidence`; `title` is what it was called, and the request says what the files don't.

    Raises:
        Problem: 400: what can't be derived, with the flag that says it; or what can't be run, and why.
    """
    _check_runnable(evidence, title, request)
    reasons = [f"{title}: no model of this name is known, so its own files say what it is"]
    model_type = _model_type(evidence, title, request, reasons)
    context = _context(evidence, title, request, reasons)
    template = evidence.chat_template if model_type == "LLM" else None
    abilities = _abilities(evidence, model_type, template, reasons)
    parser = _tool_parser(template) if "tools" in abilities else None
    if parser:
        reasons.append(f"tool calls are read as {parser}: the form that its chat template writes")
    if evidence.stop_token_ids and model_type == "LLM":
        reasons.append(f"stops at {', '.join(map(str, evidence.stop_token_ids))}: its end-of-text tokens")
    spec = ModelSpec(
        model_format=evidence.model_format,
        model_size_in_billions=_size(evidence, name, title, request, reasons),
        quantizations=quantizations,
        sources=(source,),
        shape=evidence.shape,
    )
    family = ModelFamily(
        model_name=name,
        context_length=context,
        model_lang=(),
        model_ability=abilities,
        model_specs=(spec,),
        model_description=f"Derived from {title}.",
        model_type=model_type,
        stop_token_ids=evidence.stop_token_ids if model_type == "LLM" else (),
        tool_parser=parser,
        # A model that need not think says where it does; of others, templates open the thought themselves or not.
        reasoning_tags=("<think>", "</think>") if "hybrid" in abilities and "<think>" in (template or "") else None,
    )
    return Derived(family, tuple(reasons))


def valid_name(text: str, taken: Collection[str]) -> str:
    """A name for a model, made of a file's or repository's, that is not `taken`.

    >>> valid_name("my model+.v1", ())
    'my-model-.v1'
    """
    name = _NOT_IN_NAMES.sub("-", text).strip("-.") or "model"
    name = name.encode()[:_MAX_NAME].decode("utf-8", "ignore")
    lowered = {each.lower() for each in taken}
    return f"{name[: _MAX_NAME - 7]}-custom" if name.lower() in lowered else name


def billions(parameters: float) -> int | str:
    """A number of parameters as registries write it.

    >>> [billions(count) for count in (134_515_008, 1.7e9, 6.74e9, 13.2e9)]
    ['0_135', '1_7', '6_7', 13]
    """
    count = parameters / 1e9
    text = f"{count:.0f}" if count >= 10 else f"{count:.1f}" if count >= 1 else f"{count:.3f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return int(text) if text.isdecimal() and int(text) else text.replace(".", "_") if float(text) else "0_001"


def _check_runnable(evidence: Evidence, title: str, request: LaunchRequest) -> None:
    if evidence.model_format == "pytorch" and evidence.quantization not in _TAKEN:
        raise bad_request(
            f"The weights of {title} are packed by {evidence.quantization}, which no engine here takes.",
            hint="Take the unpacked weights, or a version in GGUF, GPTQ or AWQ.",
            code="engine_unsupported",
        )
    trust: Any = request.options.get("trust_remote_code")
    if evidence.remote_code and trust is None:
        raise Problem(
            "remote_code",
            400,
            f"{title} brings Python code of its own (auto_map in its config.json), which would be run here.",
            hint="Read it, and if you trust it, launch with --trust_remote_code true; with --trust_remote_code false "
            "the engine's own code for this architecture is taken, if it has some.",
        )


def _model_type(
    evidence: Evidence, title: str, request: LaunchRequest, reasons: list[str]
) -> Literal["LLM", "embedding", "rerank"]:
    asked = request.model_type.lower()
    if asked in ("embedding", "rerank"):
        reasons.append(f"type {asked}: asked for")
        return "embedding" if asked == "embedding" else "rerank"
    if evidence.reranks:
        reasons.append(f"type rerank: {evidence.architecture} answers one score")
        return "rerank"
    if evidence.embeds:
        reasons.append(f"type embedding: {evidence.architecture} is made for embeddings")
        return "embedding"
    if evidence.generates:
        reasons.append(f"type LLM: {evidence.architecture} writes text")
        return "LLM"
    raise Problem(
        "model_type_needed",
        400,
        f"Nothing in {title} says what {evidence.architecture} is for.",
        hint="Say it with --model-type: embedding or rerank. Models of other kinds are not served.",
    )


def _context(evidence: Evidence, title: str, request: LaunchRequest, reasons: list[str]) -> int:
    if evidence.context_length:
        reasons.append(f"context {evidence.context_length} tokens: what its files say it was trained with")
        return evidence.context_length
    engines = _engines_by_context_option()
    for name in (*engines, _CONTEXT_ALIAS):
        given = request.options.get(name)
        if isinstance(given, int) and not isinstance(given, bool) and given > 0:
            reasons.append(f"context {given} tokens: given with --{name}")
            return given
    raise Problem(
        "context_length_needed",
        400,
        f"The files of {title} do not say how many tokens it attends to.",
        hint=f"Give it with {' or '.join(f'--{option} ({names})' for option, names in engines.items())}.",
    )


def _engines_by_context_option() -> dict[str, str]:
    engines: dict[str, list[str]] = {}
    for name, engine in all_engines().items():
        engines.setdefault(engine.memory.context_option, []).append(name)
    return {option: ", ".join(names) for option, names in engines.items()}


def _abilities(evidence: Evidence, model_type: str, template: str | None, reasons: list[str]) -> tuple[str, ...]:
    if model_type != "LLM":
        return ("embed",) if model_type == "embedding" else ("rerank",)
    if template is None:
        reasons.append("abilities generate: it has no chat template")
        return ("generate",)
    found = {"chat": "it has a chat template"}
    if re.search(r"\btools\b", template):
        found["tools"] = "the template takes tools"
    if "<think>" in template or "enable_thinking" in template:
        found["reasoning"] = "the template knows thoughts"
    if "enable_thinking" in template:
        found["hybrid"] = "it can be told whether to think (enable_thinking)"
    if evidence.sees:
        found["vision"] = "its config.json has a vision_config"
    reasons.append(f"abilities {', '.join(found)}: {', '.join(found.values())}")
    return tuple(found)


def _tool_parser(template: str | None) -> str | None:
    return next((parser for form, parser in _TOOL_FORMS if form in (template or "")), None)


def _size(evidence: Evidence, name: str, title: str, request: LaunchRequest, reasons: list[str]) -> int | str:
    if request.model_size_in_billions is not None:
        return request.model_size_in_billions
    for text, why in ((name, "by its name"), (evidence.size_label or "", "by the file's own label")):
        match = _SIZE_IN_NAME.search(text)
        if match is not None and 0 < float(match[1]) < _MOST_IN_NAME:
            size = billions(float(match[1]) * (1e9 if match[2] in "bB" else 1e6))
            reasons.append(f"size {size} billion: {why}")
            return size
    if evidence.parameters:
        size = billions(evidence.parameters)
        reasons.append(f"size {size} billion: by the weights in its files")
        return size
    raise Problem(
        "size_needed",
        400,
        f"Neither the name nor the files of {title} say how large it is.",
        hint="Say it with --size-in-billions, such as 7 or 1_8.",
    )
