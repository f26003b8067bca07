"""Which hub a version is fetched from, and why: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from xinference.catalog.models import HubName, ModelVersion, Source
from xinference.errors import Problem, bad_request

HUB_NAMES: tuple[HubName, ...] = get_args(HubName)
#: A folder that the user registered goes before any hub.
_ORDER: tuple[HubName, ...] = ("local", "huggingface", "modelscope", "package_index")
_ORDER_IN_CHINA: tuple[HubName, ...] = ("local", "modelscope", "huggingface", "package_index")


@dataclass(frozen=True)
class Choice:
    """The chosen source."""

    source: Source
    reason: str
    """One sentence for the launch plan."""


def choose_hub(
    version: ModelVersion,
    *,
    asked: str | None = None,
    setting: str | None = None,
    cached: Mapping[str, bool],
    reachable: Mapping[str, bool] | None = None,
    locale: str | None = None,
) -> Choice:
    """Choose among the sources that have the version's quantization.

    In this order: the hub the user asked for; the one of XINFERENCE_MODEL_SRC (`setting`); one whose files are
    already here (`cached`); the only one; the first reachable one of huggingface, modelscope, package_index
    (modelscope first in the `locale` ``zh_CN``). A hub that `reachable` does not mention counts as reachable.

    Raises:
        Problem: 400: no such hub (``unknown_hub``), or the one asked for does not have the version, or none does
            (``not_on_hub``); names those that do.
    """
    in_china = (locale or "").startswith("zh_CN")
    by_name = {s.hub: s for s in version.spec.sources if s.has(version.quantization)}
    having = [by_name[name] for name in (_ORDER_IN_CHINA if in_china else _ORDER) if name in by_name]
    if asked:
        return _asked_for(version, having, asked)
    if not having:
        raise bad_request(
            f"No hub is known to have {version.version_id}.",
            hint="Give its weights with --model-path.",
            code="not_on_hub",
        )
    passed_over = ""
    if setting:
        _check_name("XINFERENCE_MODEL_SRC", setting)
        if source := _first(having, {setting}):
            return Choice(source, "XINFERENCE_MODEL_SRC names it.")
        passed_over = f" XINFERENCE_MODEL_SRC is {setting}, which does not have this version."
    choice = _unasked(having, cached, reachable or {}, in_china)
    return Choice(choice.source, choice.reason + passed_over)


def _asked_for(version: ModelVersion, having: list[Source], asked: str) -> Choice:
    _check_name("The download hub", asked)
    source = _first(having, {asked})
    if source is None:
        names = ", ".join(s.hub for s in having)
        raise bad_request(
            f"{asked} does not have {version.version_id}.",
            hint=f"It is on: {names}." if names else "No hub is known to have it; give its weights with --model-path.",
            code="not_on_hub",
        )
    return Choice(source, "It was asked for.")


def _unasked(having: list[Source], cached: Mapping[str, bool], reachable: Mapping[str, bool], in_china: bool) -> Choice:
    if source := _first(having, {name for name, here in cached.items() if here}):
        return Choice(source, "Its files are already here.")
    if len(having) == 1:
        return Choice(having[0], "It is the only one that has this version.")
    silent = [s.hub for s in having if not reachable.get(s.hub, True)]
    answering = [s for s in having if s.hub not in silent]
    if not answering:
        return Choice(having[0], "None of those that have this version answered; it is the first of them.")
    reason = f"It is the first{' for the locale zh_CN' if in_china else ''} of {', '.join(s.hub for s in having)}"
    return Choice(answering[0], f"{reason} that can be reached." if silent else f"{reason}.")


def _first(sources: Iterable[Source], names: set[str]) -> Source | None:
    return next((s for s in sources if s.hub in names), None)


def _check_name(what: str, name: str) -> None:
    if name not in HUB_NAMES:
        raise Problem(
            "unknown_hub", 400, f"{what} is {name!r}, which is no hub.", hint=f"Use one of {', '.join(HUB_NAMES)}."
        )
