"""Converts the facts of a family to an entry of the registry, and adds them to an entry that exists. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from xinference.catalog.fact_corrections import PARAMETERS, corrected, quantizations_of, trained_in_8_bits
from xinference.catalog.fact_files import FamilyFacts
from xinference.catalog.fact_shapes import shape_of
from xinference.catalog.fact_versions import grouped, versions_of
from xinference.catalog.models import (
    ModelFamily,
    ModelShapeFacts,
    ModelSpec,
    ModelType,
    billions,
    written_size,
)

#: Families that stay as they are, whatever the facts say.
FIXED = frozenset({"llama-2-chat"})
#: Parsers that the facts name by the one of a related family, by the beginning of a family's name in lower case.
TOOL_PARSERS = {
    "qwen3-coder": "qwen_xml",
    "deepseek-v3.2-exp": "deepseek-v3.1",
    "glm-4.5": "glm45",
    "glm-4.6": "glm45",
    "glm-4.7": "glm47",
    "glm-5": "glm47",
    "ling-3": "ling3",
    "spark-x2.5": "spark25",
    # Forms that the facts leave out: by the chat templates of the weights.
    "baichuan-m2": "qwen",
    "marco-o1": "qwen",
    "internlm3": "internlm",
    "seed-oss": "seed_oss",
    "glm4-0414": "glm4",
    "glm-4.1v": "glm4",
}
#: Tags that the facts name wrongly, by the beginning of a family's name in lower case.
REASONING_TAGS = {"seed-oss": ("<seed:think>", "</seed:think>")}
#: Models of these architectures write their tool calls as XML.
_XML_CALLS = ("Qwen3_5", "Qwen4")


def convert(facts: FamilyFacts, model_type: ModelType, own: ModelFamily | None = None) -> ModelFamily:
    """The family of the registry; `own` is the project's entry, which is kept where both say something."""
    if own is not None and own.model_name in FIXED:
        return own
    specs = _with_shapes(grouped(versions_of(facts, own)), facts)
    if own is not None:
        return msgspec.structs.replace(
            own,
            model_specs=specs,
            architectures=own.architectures or facts.architectures,
            dimensions=own.dimensions or facts.dimensions,
            rerank_type=own.rerank_type or facts.type,
        )
    return _new_family(facts, model_type, specs)


def _new_family(facts: FamilyFacts, model_type: ModelType, specs: tuple[ModelSpec, ...]) -> ModelFamily:
    kind = {"LLM": (), "embedding": ("embed",), "rerank": ("rerank",)}[model_type]
    family = ModelFamily(
        model_name=facts.name,
        context_length=facts.context_length or facts.max_tokens or 512,
        model_lang=facts.languages,
        model_ability=(*kind, *facts.abilities),
        model_specs=specs,
        model_type=model_type,
        stop=facts.stop,
        stop_token_ids=facts.stop_token_ids,
        tool_parser=_tool_parser(facts),
        reasoning_tags=_reasoning_tags(facts),
        architectures=facts.architectures,
        dimensions=facts.dimensions,
        rerank_type=facts.type,
    )
    return msgspec.structs.replace(family, model_description=description(family))


def description(family: ModelFamily) -> str:
    """One sentence from the facts."""
    context = f"{family.context_length:,} tokens"
    if family.model_type == "embedding":
        return f"Embedding model for texts of up to {context}, with {family.dimensions:,} dimensions."
    if family.model_type == "rerank":
        return f"Rerank model for texts of up to {context}."
    abilities = family.model_ability
    kind = "Chat model" if "chat" in abilities else "Base model"
    seen = [
        word for word, ability in (("images", "vision"), ("audio", "audio"), ("video", "video")) if ability in abilities
    ]
    reads = f" that reads {' and '.join(seen)}" if seen else ""
    architecture = f" of the architecture {family.architectures[0]}" if family.architectures else ""
    sizes = sorted({billions(spec.model_size_in_billions) for spec in family.model_specs})
    listed = {billions(s.model_size_in_billions): written_size(s.model_size_in_billions) for s in family.model_specs}
    ends = listed[sizes[0]] if len(sizes) == 1 else f"{listed[sizes[0]]} to {listed[sizes[-1]]}"
    return f"{kind}{reads}{architecture}, {ends}, {context} of context."


def _reasoning_tags(facts: FamilyFacts) -> tuple[str, str] | None:
    named = facts.name.lower()
    known = next((tags for start, tags in REASONING_TAGS.items() if named.startswith(start)), None)
    if known is not None:
        return known
    start, end = facts.reasoning_start, facts.reasoning_end
    return (start, end) if start and end else None


def _tool_parser(facts: FamilyFacts) -> str | None:
    if facts.tool_parser == "qwen" and facts.architectures[:1] and facts.architectures[0].startswith(_XML_CALLS):
        return "qwen_xml"
    named = facts.name.lower()
    return next((parser for start, parser in TOOL_PARSERS.items() if named.startswith(start)), facts.tool_parser)


def _with_shapes(specs: tuple[ModelSpec, ...], facts: FamilyFacts) -> tuple[ModelSpec, ...]:
    shapes = _shapes(facts)
    activated = {
        billions(spec.size_in_billions): spec.activated_in_billions
        for spec in facts.specs
        if spec.activated_in_billions
    }
    whole = (
        msgspec.structs.replace(
            spec,
            shape=spec.shape or shapes.get(billions(spec.model_size_in_billions)),
            activated_size_in_billions=spec.activated_size_in_billions
            or activated.get(billions(spec.model_size_in_billions)),
        )
        for spec in specs
    )
    return tuple(_with_8_bits(spec, facts.name) for spec in whole)


def _with_8_bits(spec: ModelSpec, family: str) -> ModelSpec:
    """The spec with the bytes of weights that were trained in 8 bits, whose index does not tell them."""
    size = billions(spec.model_size_in_billions)
    known = spec.shape is None or "none" not in spec.quantizations or "none" in spec.weights_bytes
    if spec.model_format != "pytorch" or known or not trained_in_8_bits(family, size):
        return spec
    assert spec.shape is not None
    vocabulary = spec.shape.vocab * spec.shape.hidden * 2
    return msgspec.structs.replace(
        spec, weights_bytes={**spec.weights_bytes, "none": spec.shape.parameters + vocabulary}
    )


def _shapes(facts: FamilyFacts) -> Mapping[float, ModelShapeFacts]:
    """Size -> its shape: the same for all formats, and first that of the weights as trained."""
    ordered = sorted(facts.specs, key=lambda spec: spec.format != "pytorch")
    metadata: dict[float, dict[str, Any]] = {}
    stored: dict[float, int] = {}
    sparse = {billions(spec.size_in_billions) for spec in facts.specs if spec.activated_in_billions}
    for spec in ordered:
        for hub in spec.hubs.values():
            for quantization in quantizations_of(spec, hub):
                entry = corrected(facts.name, spec, hub, quantization)
                found, size = spec.metadata_of(quantization), billions(entry.size)
                if found is None:
                    continue
                metadata.setdefault(size, found)
                if (entry.model_format, entry.quantization) == ("pytorch", "none") and "weights_bytes" in found:
                    stored.setdefault(size, found["weights_bytes"] // 2)
    architecture = facts.architectures[0] if facts.architectures else ""
    return {
        size: shape_of(
            found,
            size,
            architecture,
            sparse=size in sparse,
            stored_parameters=stored.get(size) or PARAMETERS.get(facts.name.lower()),
        )
        for size, found in metadata.items()
    }
