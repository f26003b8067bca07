"""Chooses the hub from which a version is fetched: a pure decision with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from xinference.catalog.models import HubName, ModelVersion, Source
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

HUB_NAMES: tuple[HubName, ...] = get_args(HubName)
#: A folder that the user registered has precedence over any hub.
_ORDER: tuple[HubName, ...] = ("local", "huggingface", "modelscope", "package_index")
_ORDER_IN_CHINA: tuple[HubName, ...] = ("local", "modelscope", "huggingface", "package_index")


@dataclass(frozen=True)
class HubChoice:
    """The chosen source, with the reason."""

    source: Source
    reason: str
    """A part of a sentence, for the launch plan."""


def choose_hub(
    version: ModelVersion,
    *,
    requested: str | None = None,
    setting: str | None = None,
    cached: Mapping[str, bool],
    reachable: Mapping[str, bool] | None = None,
    locale: str | None = None,
) -> HubChoice:
    """Choose among the sources that have the version's quantization.

    In this order: the hub that the user requested; the one of XINFERENCE_MODEL_SRC (`setting`); one whose files are
    cached (`cached`); the only one; the first reachable one of huggingface, modelscope, package_index
    (modelscope first in the `locale` ``zh_CN``). A hub that is missing in `reachable` counts as reachable.

    Raises:
        Problem: 400 ``unknown_hub``: there is no such hub; 400 ``not_on_hub``: the requested hub does not have the
            version, or no hub has it. The problem names the hubs that have it.
    """
    in_china = (locale or "").startswith("zh_CN")
    by_name = {s.hub: s for s in version.spec.sources if s.has(version.quantization)}
    candidates = [by_name[name] for name in (_ORDER_IN_CHINA if in_china else _ORDER) if name in by_name]
    if requested:
        return _choose_requested(version, candidates, requested)
    if not candidates:
        raise bad_request(
            f"No hub is known to have {version.version_id}.",
            hint="Pass its weights with --model-path.",
            code=Code.NOT_ON_HUB,
        )
    note = ""
    if setting:
        _check_name("XINFERENCE_MODEL_SRC", setting)
        if source := _first(candidates, {setting}):
            return HubChoice(source, "XINFERENCE_MODEL_SRC names it")
        note = f"; XINFERENCE_MODEL_SRC is {setting}, which does not have this version"
    choice = _choose_default(candidates, cached, reachable or {}, in_china)
    return HubChoice(choice.source, choice.reason + note)


def _choose_requested(version: ModelVersion, candidates: list[Source], requested: str) -> HubChoice:
    _check_name("The download hub", requested)
    source = _first(candidates, {requested})
    if source is None:
        names = ", ".join(s.hub for s in candidates)
        raise bad_request(
            f"{requested} does not have {version.version_id}.",
            hint=f"It is on: {names}." if names else "No hub is known to have it; pass its weights with --model-path.",
            code=Code.NOT_ON_HUB,
        )
    return HubChoice(source, "requested")


def _choose_default(
    candidates: list[Source], cached: Mapping[str, bool], reachable: Mapping[str, bool], in_china: bool
) -> HubChoice:
    if source := _first(candidates, {name for name, is_cached in cached.items() if is_cached}):
        return HubChoice(source, "its files are already cached")
    if len(candidates) == 1:
        return HubChoice(candidates[0], "the only hub that has this version")
    silent = [s.hub for s in candidates if not reachable.get(s.hub, True)]
    answering = [s for s in candidates if s.hub not in silent]
    if not answering:
        return HubChoice(candidates[0], "no hub with this version answered, and this one is tried first")
    reason = f"the first{' for the locale zh_CN' if in_china else ''} of {', '.join(s.hub for s in candidates)}"
    return HubChoice(answering[0], f"{reason} that can be reached" if silent else reason)


def _first(sources: Iterable[Source], names: set[str]) -> Source | None:
    return next((s for s in sources if s.hub in names), None)


def _check_name(what: str, name: str) -> None:
    if name not in HUB_NAMES:
        raise Problem(
            Code.UNKNOWN_HUB, f"{what} is {name!r}, which is not a hub.", hint=f"Use one of {', '.join(HUB_NAMES)}."
        )
