"""Converts the facts of a family to an entry of the registry, and adds them to an entry that exists. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from xinference.catalog.fact_corrections import PARAMETERS, Entry, corrected, quantizations_of, trained_in_8_bits
from xinference.catalog.fact_files import FamilyFacts, HubFacts, SpecFacts
from xinference.catalog.fact_shapes import shape_of
from xinference.catalog.known_sizes import KNOWN_SIZES
from xinference.catalog.models import (
    Draft,
    FileFacts,
    HubName,
    ModelFamily,
    ModelFormat,
    ModelShapeFacts,
    ModelSpec,
    ModelType,
    Source,
    number_of_billions,
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
_SIZE_IN_NAME = re.compile(r"[-_](\d+(?:\.\d+)?)b\b", re.IGNORECASE)
Key = tuple[str, float, str]


@dataclass(frozen=True)
class Place:
    """One version on one hub."""

    base: Source
    """The source without what differs between its quantizations."""
    parts: tuple[str, ...] | None = None
    facts: FileFacts | None = None


@dataclass
class Version:
    """One (format, size, quantization) during the conversion."""

    origin: tuple[str, int]
    """The spec from which it is: versions of several specs are never joined."""
    base: ModelSpec
    """The spec without its quantizations and sources."""
    quantization: str
    places: dict[HubName, Place] = field(default_factory=dict)
    weights_bytes: int | None = None

    @property
    def key(self) -> Key:
        return (self.base.model_format, _number(self.base.model_size_in_billions), self.quantization.lower())


def convert(facts: FamilyFacts, model_type: ModelType, own: ModelFamily | None = None) -> ModelFamily:
    """The family of the registry; `own` is the project's entry, which is kept where both say something."""
    if own is not None and own.model_name in FIXED:
        return own
    versions: dict[Key, Version] = {}
    for number, spec in enumerate(own.model_specs if own else ()):
        for version in _own_versions(spec, number):
            versions[version.key] = version
    for number, spec_facts in enumerate(facts.specs):
        for hub, hub_facts in spec_facts.hubs.items():
            for quantization in quantizations_of(spec_facts, hub_facts):
                _add(versions, facts, number, spec_facts, hub, hub_facts, quantization, own)
    specs = _with_shapes(_grouped(versions.values()), facts)
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
    sizes = sorted({_number(spec.model_size_in_billions) for spec in family.model_specs})
    listed = {_number(s.model_size_in_billions): written_size(s.model_size_in_billions) for s in family.model_specs}
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


# -- versions ---------------------------------------------------------------------------------------------------


def _own_versions(spec: ModelSpec, number: int) -> Iterable[Version]:
    base = msgspec.structs.replace(spec, quantizations=(), sources=(), weights_bytes={})
    for quantization in spec.quantizations:
        version = Version(("own", number), base, quantization, weights_bytes=spec.weights_bytes.get(quantization))
        for source in spec.sources:
            if source.has(quantization):
                version.places[source.hub] = Place(
                    msgspec.structs.replace(source, quantizations=None, parts={}, facts={}),
                    source.parts.get(quantization),
                    source.facts.get(quantization),
                )
        yield version


def _add(
    versions: dict[Key, Version],
    facts: FamilyFacts,
    number: int,
    spec: SpecFacts,
    hub: HubName,
    hub_facts: HubFacts,
    quantization: str,
    own: ModelFamily | None,
) -> None:
    entry = corrected(facts.name, spec, hub_facts, quantization)
    size = _size(entry, facts, own)
    version = Version(
        ("facts", number),
        ModelSpec(
            model_format=cast(ModelFormat, entry.model_format),
            model_size_in_billions=size,
            activated_size_in_billions=spec.activated_in_billions,
            quantizations=(),
            sources=(),
        ),
        entry.quantization,
    )
    version = versions.setdefault(version.key, version)
    metadata = spec.metadata_of(quantization) or {}
    if entry.reason is None and version.weights_bytes is None:
        version.weights_bytes = metadata.get("weights_bytes")
    # The first one stays: a repetition is an error of the facts, and an entry of the project is kept.
    version.places.setdefault(hub, _place(hub, hub_facts, entry, quantization))


def _size(entry: Entry, facts: FamilyFacts, own: ModelFamily | None) -> int | str:
    if entry.size != 0:
        return entry.size
    known = {str(spec.model_size_in_billions): spec.model_size_in_billions for spec in own.model_specs} if own else {}
    if len(known) == 1:
        return next(iter(known.values()))
    named = _SIZE_IN_NAME.search(facts.name)
    if named is None:
        return KNOWN_SIZES.get(facts.name, 0)
    return int(named[1]) if named[1].isdecimal() else named[1].replace(".", "_")


def _place(hub: HubName, facts: HubFacts, entry: Entry, quantization: str) -> Place:
    draft = None
    if facts.draft_id is not None:
        file = facts.draft_file
        draft = Draft(
            model_id=facts.draft_id.replace("{draft_quantization}", "{quantization}"),
            file=file.replace("{draft_quantization}", "{quantization}") if file else None,
            quantizations=facts.draft_quantizations,
        )
    base = Source(
        hub=hub,
        model_id=entry.model_id,
        revision=facts.revision,
        file=entry.file,
        projectors=(facts.projectors,) if isinstance(facts.projectors, str) else facts.projectors,
        draft=draft,
    )
    return Place(base, part_names(facts, quantization))


def part_names(facts: HubFacts, quantization: str) -> tuple[str, ...] | None:
    """The names of the files of a split version."""
    if quantization not in facts.parts or facts.split_file is None:
        return None
    named = facts.split_file.replace("{quantization}", quantization)
    return tuple(named.replace("{part}", part) for part in facts.parts[quantization])


# -- specs ------------------------------------------------------------------------------------------------------


@dataclass
class _Group:
    origin: tuple[str, int]
    base: ModelSpec
    versions: list[Version] = field(default_factory=list)
    bases: dict[HubName, Source] = field(default_factory=dict)

    def takes(self, version: Version) -> bool:
        same = version.origin == self.origin and version.base == self.base
        return same and all(self.bases.get(hub, place.base) == place.base for hub, place in version.places.items())

    def add(self, version: Version) -> None:
        self.versions.append(version)
        self.bases |= {hub: place.base for hub, place in version.places.items()}

    def spec(self) -> ModelSpec:
        return msgspec.structs.replace(
            self.base,
            quantizations=tuple(version.quantization for version in self.versions),
            sources=tuple(self._source(hub, base) for hub, base in self.bases.items()),
            weights_bytes={v.quantization: v.weights_bytes for v in self.versions if v.weights_bytes},
        )

    def _source(self, hub: HubName, base: Source) -> Source:
        mine = [version for version in self.versions if hub in version.places]
        places = {version.quantization: version.places[hub] for version in mine}
        return msgspec.structs.replace(
            base,
            quantizations=None if len(mine) == len(self.versions) else tuple(places),
            parts={quantization: place.parts for quantization, place in places.items() if place.parts},
            facts={quantization: place.facts for quantization, place in places.items() if place.facts},
        )


def _grouped(versions: Iterable[Version]) -> tuple[ModelSpec, ...]:
    """The specs: versions of one spec are together, as long as each hub has them in one repository."""
    groups: list[_Group] = []
    for version in versions:
        group = next((each for each in groups if each.takes(version)), None)
        if group is None:
            group = _Group(version.origin, version.base)
            groups.append(group)
        group.add(version)
    return tuple(group.spec() for group in groups)


def _with_shapes(specs: tuple[ModelSpec, ...], facts: FamilyFacts) -> tuple[ModelSpec, ...]:
    shapes = _shapes(facts)
    activated = {
        _number(spec.size_in_billions): spec.activated_in_billions for spec in facts.specs if spec.activated_in_billions
    }
    whole = (
        msgspec.structs.replace(
            spec,
            shape=spec.shape or shapes.get(_number(spec.model_size_in_billions)),
            activated_size_in_billions=spec.activated_size_in_billions
            or activated.get(_number(spec.model_size_in_billions)),
        )
        for spec in specs
    )
    return tuple(_with_8_bits(spec, facts.name) for spec in whole)


def _with_8_bits(spec: ModelSpec, family: str) -> ModelSpec:
    """The spec with the bytes of weights that were trained in 8 bits, whose index does not tell them."""
    size = _number(spec.model_size_in_billions)
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
    sparse = {_number(spec.size_in_billions) for spec in facts.specs if spec.activated_in_billions}
    for spec in ordered:
        for hub in spec.hubs.values():
            for quantization in quantizations_of(spec, hub):
                entry = corrected(facts.name, spec, hub, quantization)
                found, size = spec.metadata_of(quantization), _number(entry.size)
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


def _number(size: float | str) -> float:
    number = number_of_billions(size)
    return 0.0 if isinstance(number, str) else number
