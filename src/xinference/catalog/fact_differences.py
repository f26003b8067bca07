"""The differences between the facts and the registry, each with its reason; `docs/catalog.md` has the table. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from xinference.catalog.fact_corrections import corrected, quantizations_of
from xinference.catalog.fact_files import FamilyFacts, HubFacts, SpecFacts
from xinference.catalog.fact_versions import part_names
from xinference.catalog.known_projectors import REASON, corrected_sizes
from xinference.catalog.models import HubName, ModelFamily, Source, same_size

OWN_REVISION = "the project's entry is used: it has the default branch, so cached weights can still be used"
OWN_ID = "the project's entry is used: it has the newer id of the repository"
OWN_REPOSITORY = "the project's entry is used: it has the repository of the model's publisher"
OWN_FILE = "the project's entry is used: it has one file instead of several parts"


@dataclass(frozen=True)
class Difference:
    """One (version, hub) of the facts that the registry has in another way."""

    family: str
    model_format: str
    size: str
    hub: HubName
    quantization: str
    in_facts: str
    in_registry: str
    reason: str

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return (self.family, self.model_format, self.size, self.quantization, self.hub)


@dataclass(frozen=True)
class _Files:
    model_id: str
    revision: str | None
    names: tuple[str, ...]

    def written(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return " ".join([f"{self.model_id}{at}", *(self.names[:1])])


def differences(facts: FamilyFacts, family: ModelFamily) -> Iterator[Difference]:
    """Every difference of one family, in the order of the facts."""
    for spec in facts.specs:
        for hub, hub_facts in spec.hubs.items():
            for quantization in quantizations_of(spec, hub_facts):
                found = _difference(facts.name, family, spec, hub, hub_facts, quantization)
                if found is not None:
                    yield found


def table(found: Sequence[Difference]) -> str:
    """The differences as a table of Markdown: one row for each size on one hub."""
    rows: dict[tuple[str, ...], list[Difference]] = {}
    for each in found:
        rows.setdefault((each.family, each.model_format, each.size, each.hub, each.reason), []).append(each)
    head = "| family | version | hub | facts | registry | reason |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "".join(_row(each) for each in rows.values())


def table_of_bytes() -> str:
    """The versions of GGUF that a plan gives other bytes than the facts, as a table of Markdown."""
    head = "| family | size | facts' bytes minus the plan's | reason |\n| --- | --- | --- | --- |\n"
    return head + "".join(f"| {family} | {size} | {more} | {REASON} |\n" for family, size, more in corrected_sizes())


def _row(found: Sequence[Difference]) -> str:
    first = found[0]
    every = ", ".join(dict.fromkeys(each.quantization for each in found))
    version = f"{first.model_format} {first.size} {every}"
    cells = (first.family, version, first.hub, f"`{first.in_facts}`", f"`{first.in_registry}`", first.reason)
    return f"| {' | '.join(cells)} |\n"


def _difference(
    name: str, family: ModelFamily, spec: SpecFacts, hub: HubName, facts: HubFacts, quantization: str
) -> Difference | None:
    entry = corrected(name, spec, facts, quantization)
    template = facts.file.replace("{quantization}", quantization) if facts.file else None
    parts = part_names(facts, quantization)
    said = _Files(
        facts.id.replace("{quantization}", quantization),
        facts.revision,
        parts or ((template,) if template else ()),
    )
    has, known = _of_registry(family, entry.model_format, entry.size, entry.quantization, hub)
    if has is None or known is None:
        raise LookupError(f"{name} has no {entry.model_format} {entry.size} {entry.quantization} on {hub}")
    if has == said and entry.reason is None:
        return None
    same = (spec.format, str(spec.size_in_billions)) == (entry.model_format, str(entry.size))
    in_registry = has.written() if same else f"{entry.model_format} {entry.size} {known}: {has.written()}"
    return Difference(
        name,
        spec.format,
        str(spec.size_in_billions),
        hub,
        quantization,
        said.written(),
        in_registry,
        entry.reason or _reason(said, has),
    )


def _reason(said: _Files, has: _Files) -> str:
    if said.model_id == has.model_id and said.names == has.names:
        return OWN_REVISION
    if len(said.names) > len(has.names) > 0:
        return OWN_FILE
    return OWN_ID if said.model_id.split("/")[0] == has.model_id.split("/")[0] else OWN_REPOSITORY


def _of_registry(
    family: ModelFamily, model_format: str, size: int | str, quantization: str, hub: HubName
) -> tuple[_Files | None, str | None]:
    for spec in family.model_specs:
        if spec.model_format != model_format or (size != 0 and not same_size(spec.model_size_in_billions, size)):
            continue
        for known in spec.quantizations:
            source = spec.source(hub)
            if known.lower() == quantization.lower() and source is not None and source.has(known):
                return _files(source, known), known
    return None, None


def _files(source: Source, quantization: str) -> _Files:
    file = source.file_name(quantization)
    names = source.parts.get(quantization) or ((file,) if file else ())
    return _Files(source.model_id, source.revision, tuple(names))


def all_differences(
    facts: Mapping[str, Sequence[FamilyFacts]], families: Mapping[str, ModelFamily]
) -> list[Difference]:
    """The differences of every family, in the order of the names."""
    ordered = sorted((each for of_type in facts.values() for each in of_type), key=lambda each: each.name.lower())
    return [found for each in ordered for found in differences(each, families[each.name])]
