"""Prometheus' text format: reads the metrics of engines, and joins them with labels that distinguish them. Pure.

One wrong line would make Prometheus refuse the whole text, so only lines that are valid are passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

#: Maximum number of samples of one engine; vLLM has about 600.
MAX_SAMPLES = 10_000
_LABEL = r'[a-zA-Z_]\w*="(?:[^"\\]|\\.)*"'
_SAMPLE = re.compile(
    rf"(?P<name>[a-zA-Z_:][\w:]*)(?:\{{(?P<labels>(?:{_LABEL}(?:,\s?{_LABEL})*)?,?)\}})?\s+"
    r"(?P<value>[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|[Ii]nf|[Nn]a[Nn]))\s*(?:-?\d+)?\s*",
    re.ASCII,
)
_COMMENT = re.compile(r"# (?P<kind>HELP|TYPE) (?P<name>[a-zA-Z_:][\w:]*)(?: (?P<text>.*))?", re.ASCII)
_TYPES = frozenset({"counter", "gauge", "histogram", "summary", "untyped", "unknown"})
#: The endings of the samples of one family.
_ENDINGS = ("", "_bucket", "_count", "_sum", "_total", "_created", "_max", "_min")
_ANY_LABEL = re.compile(rf"(?P<label>{_LABEL})")


@dataclass(slots=True)
class Family:
    """The samples of one name, and what is said of them."""

    name: str
    kind: str = ""
    text: str = ""
    samples: list[str] = field(default_factory=list)
    """Complete lines."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """The metrics of one program."""

    families: dict[str, Family]
    values: Mapping[str, list[float]]
    """The values of all series by the name of the sample."""


class TooManySamplesError(Exception):
    """A program has more than `MAX_SAMPLES`."""


def label_text(value: str) -> str:
    """The value of a label as it is written between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def read(
    text: str, labels: Mapping[str, str], reserved: str, divided: Mapping[str, str] = MappingProxyType({})
) -> Exposition:
    """Read the metrics of one program, and add labels to each sample.

    Args:
        labels: these; a label of the program with such a name gets the prefix ``exported_``, as Prometheus does it.
        reserved: samples whose names begin with this are left out.
        divided: sample -> a label. Its series with a value of the label are parts of the one without: `values` leaves
            them out.

    Raises:
        TooManySamplesError: there are more than `MAX_SAMPLES`.
    """
    added = ",".join(f'{name}="{label_text(value)}"' for name, value in labels.items())
    families: dict[str, Family] = {}
    values: dict[str, list[float]] = {}
    current, count = Family(""), 0
    for line in text.split("\n"):
        if line.startswith("#"):
            current = _note_comment(families, current, line)
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None or match["name"].startswith(reserved):
            continue
        count += 1
        if count > MAX_SAMPLES:
            raise TooManySamplesError
        name, own = match["name"], (match["labels"] or "").rstrip(",")
        if not (current.name and name.startswith(current.name) and name[len(current.name) :] in _ENDINGS):
            current = families.setdefault(name, Family(name))
        own = _without_clash(own, labels) if own else ""
        current.samples.append(f"{name}{{{own + ',' if own else ''}{added}}} {match['value']}")
        if name not in divided or not _has_value(own, divided[name]):
            values.setdefault(name, []).append(float(match["value"]))
    return Exposition(families, values)


def _note_comment(families: dict[str, Family], current: Family, line: str) -> Family:
    """The family that a comment is about."""
    match = _COMMENT.fullmatch(line)
    if match is None:
        return current
    family = families.setdefault(match["name"], Family(match["name"]))
    if match["kind"] == "HELP":
        family.text = match["text"] or ""
    elif match["text"] in _TYPES:
        family.kind = match["text"]
    return family


def _has_value(own: str, label: str) -> bool:
    each = (match["label"] for match in _ANY_LABEL.finditer(own))
    return any(name == label and value != '""' for name, _, value in (text.partition("=") for text in each))


def _without_clash(own: str, labels: Mapping[str, str]) -> str:
    if not any(name in own for name in labels):
        return own
    each = (match["label"] for match in _ANY_LABEL.finditer(own))
    return ",".join(f"exported_{label}" if label.partition("=")[0] in labels else label for label in each)


def joined(expositions: Iterable[Exposition]) -> str:
    """One text: the samples of a name follow each other, whichever program they are from."""
    families: dict[str, Family] = {}
    for exposition in expositions:
        for family in exposition.families.values():
            known = families.setdefault(family.name, Family(family.name, family.kind, family.text))
            known.samples.extend(family.samples)
    return "".join(_written(family) for family in families.values() if family.samples)


def _written(family: Family) -> str:
    head = f"# HELP {family.name} {family.text}\n" if family.text else ""
    kind = f"# TYPE {family.name} {family.kind}\n" if family.kind else ""
    return head + kind + "\n".join(family.samples) + "\n"
