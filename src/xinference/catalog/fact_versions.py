"""The versions of a family while its facts are converted: one for each format, size and quantization, with its hubs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import msgspec

from xinference.catalog.fact_corrections import Entry, corrected, quantizations_of
from xinference.catalog.fact_files import FamilyFacts, HubFacts, SpecFacts
from xinference.catalog.known_sizes import KNOWN_SIZES
from xinference.catalog.models import (
    Draft,
    FileFacts,
    HubName,
    ModelFamily,
    ModelFormat,
    ModelSpec,
    Source,
    billions,
)

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
        return (self.base.model_format, billions(self.base.model_size_in_billions), self.quantization.lower())


def versions_of(facts: FamilyFacts, own: ModelFamily | None) -> Iterable[Version]:
    """The versions of the project's entry, then those of the facts; each has the hubs of both."""
    versions: dict[Key, Version] = {}
    for number, spec in enumerate(own.model_specs if own else ()):
        for version in _own_versions(spec, number):
            versions[version.key] = version
    for number, spec_facts in enumerate(facts.specs):
        for hub, hub_facts in spec_facts.hubs.items():
            for quantization in quantizations_of(spec_facts, hub_facts):
                _add(versions, facts, number, spec_facts, hub, hub_facts, quantization, own)
    return versions.values()


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


def grouped(versions: Iterable[Version]) -> tuple[ModelSpec, ...]:
    """The specs: versions of one spec are together, as long as each hub has them in one repository."""
    groups: list[_Group] = []
    for version in versions:
        group = next((each for each in groups if each.takes(version)), None)
        if group is None:
            group = _Group(version.origin, version.base)
            groups.append(group)
        group.add(version)
    return tuple(group.spec() for group in groups)
