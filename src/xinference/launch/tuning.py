"""The options with which a version of a model was the fastest on a machine, as `xinference tune` measured it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.errors import Problem, shown
from xinference.hardware.devices import Host
from xinference.launch.plan import LaunchDraft

#: The option of a launch that leaves the measured options out: ``tune: false``.
OPTION = "tune"


class Tuning(msgspec.Struct, frozen=True):
    """The result of one measurement."""

    version_id: str
    engine: str
    release: str
    """The release of the engine's package: another one may be faster with other options."""
    machine: str
    """`machine_of` the machine."""
    options: dict[str, Any]
    """By the engine's own names; empty: nothing was faster than the defaults."""
    ratios: dict[str, float]
    """Each figure -> the speed with these options in relation to that with the defaults."""


def machine_of(host: Host) -> str:
    """A text that is the same for machines that compute at the same speed."""
    flags = blake2b(" ".join(sorted(host.cpu_flags)).encode(), digest_size=6).hexdigest()
    return "; ".join((host.cpu_name, f"{host.physical_cores} cores", flags, *(gpu.name for gpu in host.gpus)))


def is_off(options: Mapping[str, Any]) -> bool:
    """Whether a launch leaves the measured options out.

    Raises:
        Problem: 400 ``bad_option``, the value is not true or false.
    """
    value = options.get(OPTION, True)
    if not isinstance(value, bool):
        raise Problem(Code.BAD_OPTION, f"--{OPTION} is {shown(value)}, and must be true or false.")
    return not value


def without_own(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a launch that are the engine's."""
    return {name: value for name, value in options.items() if name != OPTION}


def find_tuning(tunings: Iterable[Tuning], draft: LaunchDraft, release: str, host: Host) -> Tuning | None:
    """The measurement of the draft's version on its engine and this machine."""
    wanted = (draft.version.version_id, draft.engine, release, machine_of(host))
    return next((each for each in tunings if _key(each) == wanted), None)


def with_entry(tunings: Iterable[Tuning], tuning: Tuning) -> list[Tuning]:
    """The measurements with a new one, in place of an earlier one of the same version on the same machine."""
    return [each for each in tunings if _key(each) != _key(tuning)] + [tuning]


def with_tuning(draft: LaunchDraft, tuning: Tuning | None) -> LaunchDraft:
    """The draft with the measured options that the launch does not name, and with the reason for them."""
    options = {} if tuning is None else {k: v for k, v in tuning.options.items() if k not in draft.options}
    if tuning is None or not options:
        return draft
    words = ", ".join(f"{name} {_word(value)}" for name, value in options.items())
    gains = ", ".join(f"{name} {ratio:.2f}" for name, ratio in tuning.ratios.items())
    reason = f"tuned on this machine: {words} (speed in relation to the defaults: {gains}); --no-tune leaves it out"
    return replace(draft, options={**draft.options, **options}, reasons=(*draft.reasons, reason))


def _key(tuning: Tuning) -> tuple[str, str, str, str]:
    return tuning.version_id, tuning.engine, tuning.release, tuning.machine


def _word(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
