"""`xinference tune`: measures which options of an engine are the fastest for a model here, and stores them."""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil
from pydantic import ValidationError

from xinference.api.launch_body import LaunchBody
from xinference.catalog.models import same_size
from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.engines.replica_placement import Placement
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, not_found
from xinference.hardware.devices import read_host
from xinference.launch.name_tag import read_tag, split_tag
from xinference.launch.plan import SizedPlan
from xinference.launch.quantization_order import same_quantization
from xinference.launch.request import LaunchRequest
from xinference.launch.tuning import OPTION, Tuning, machine_of, with_entry
from xinference.launch.tuning_file import read_tunings, write_tunings
from xinference.local_commands import engine_speed
from xinference.local_commands.plan import HomePlanner
from xinference.local_commands.speed_comparison import Comparison
from xinference.local_commands.tuning_search import Found, Options, search
from xinference.process.command import EngineCommand
from xinference.units import GIB

#: The context of the measured engines, in tokens: longer ones take memory, and change no figure.
CONTEXT = 4096
#: Rounds of a comparison, and of the last one with the defaults.
ROUNDS, LAST_ROUNDS = 3, 7
#: The share of the time after which no further change is tried: the rest is for the last comparison.
SEARCH_SHARE = 0.75

Report = Callable[[str], None]
#: Groups of changes, of each of which at most one is kept.
Changes = Sequence[Sequence[Options]]


def tune(
    body: Mapping[str, Any], *, minutes: float, any_answers: bool, report: Report, settings: Settings | None = None
) -> Tuning:
    """Measure, and keep the result.

    Args:
        body: a launch, in the form of the API.
        any_answers: also try options that change the answers.

    Raises:
        Problem: the model can't be measured here, or not in this time; what was kept before remains.
    """
    settings = settings or Settings.from_env()
    request = _request(body)
    with asyncio.Runner() as runner, ExitStack() as stack:
        planner = HomePlanner(settings)
        plan = runner.run(planner.size(request))
        if plan is None:
            raise not_found(
                f"The weights of {request.model_name} are not on this machine.",
                hint="Download them first: `xinference download`.",
                code=Code.NOT_CACHED,
            )
        changes = all_engines()[plan.engine].option_changes(read_host(), plan.sizing.slots, any_answers=any_answers)
        _check(plan, changes)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        seconds = minutes * 60

        def plan_with(options: Options) -> SizedPlan | None:
            return runner.run(planner.size_with(plan, options))

        bench = stack.enter_context(Bench(plan_with, folder, report, time.monotonic() + seconds, any_answers))
        try:
            found = _search(bench, changes, seconds, report)
        except engine_speed.TimeUpError:
            raise _too_short(minutes, "no option could be compared with the defaults") from None
        if not found.is_certain:
            raise _too_short(minutes, "options were faster, but the last comparison had too few rounds")
    result = Tuning(
        plan.version.version_id, plan.engine, _release(plan), machine_of(read_host()), found.options, found.ratios
    )
    write_tunings(settings.home, with_entry(read_tunings(settings.home), result))
    return result


def _too_short(minutes: float, what: str) -> Problem:
    return Problem(
        Code.BAD_OPTION,
        f"--minutes {minutes:g} is too short: {what}.",
        hint="Use a larger number of minutes, or repeat the command when the machine is less busy.",
    )


def forget(name: str, settings: Settings | None = None) -> list[str]:
    """Delete the measurements of all versions of a model on any machine; returns the versions.

    Args:
        name: a version id, or the name of a model in any case, perhaps with a tag that names some of its versions.
    """
    settings = settings or Settings.from_env()
    known = read_tunings(settings.home)
    gone = [each for each in known if _is_of(each.version_id, name.strip())]
    if gone:
        write_tunings(settings.home, [each for each in known if each not in gone])
    return sorted({each.version_id for each in gone})


def _is_of(version_id: str, name: str) -> bool:
    family, size, _, quantization = version_id.rsplit("--", 3)
    if name.lower() in (version_id.lower(), family.lower()):
        return True
    beginning, tag = split_tag(name)
    tagged_size, tagged_quantization = read_tag(tag) if tag else (None, None)
    return (
        tag is not None
        and beginning.lower() == family.lower()
        and (tagged_size is None or same_size(size, tagged_size))
        and (tagged_quantization is None or same_quantization(quantization, tagged_quantization))
    )


@dataclass
class Bench(AbstractContextManager["Bench"]):
    """Runs the engine with the best options until now, and beside it one with a change."""

    plan_with: Callable[[Options], SizedPlan | None]
    folder: Path
    report: Report
    ends: float
    """The time of `time.monotonic` after which nothing more is measured."""
    any_answers: bool

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._running: tuple[Options, engine_speed.Engine] | None = None
        self._answers: list[str] = []
        self.context = 0

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def compare(self, first: Options, second: Options, rounds: int, until: float) -> Comparison | None:
        """The speeds with the second options in relation to the first ones; None: the second can't be used.

        Raises:
            Problem: the engine does not start with the first options.
            TimeUpError: the time is over.
        """
        base = self._base(first)
        self._answers = self._answers or engine_speed.answers(base)
        try:
            plan = self.plan_with(second)
            if plan is None or plan.sizing.context_length < self.context:
                self.report("  rejected: the context would be shorter")
                return None
            if self._words(plan) == self._words(self._plan(first)):
                self.report("  no effect on the command line of the engine")
                return None
            with engine_speed.running(*self._command(plan), self.ends) as engine:
                if not self.any_answers and engine_speed.answers(engine) != self._answers:
                    self.report("  rejected: the answers differ")
                    return None
                return engine_speed.compare(base, engine, rounds, until)
        except (Problem, OSError) as error:
            self.report(error.cause if isinstance(error, Problem) else str(error))
            return None

    def _base(self, options: Options) -> engine_speed.Engine:
        if self._running is None or self._running[0] != options:
            self._stack.close()
            plan = self._plan(options)
            self.context = self.context or plan.sizing.context_length
            engine = self._stack.enter_context(engine_speed.running(*self._command(plan), self.ends))
            self._running = (dict(options), engine)
        return self._running[1]

    def _plan(self, options: Options) -> SizedPlan:
        plan = self.plan_with(options)
        assert plan is not None  # its weights are there
        return plan

    def _words(self, plan: SizedPlan) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """What decides how an engine runs."""
        command = all_engines()[plan.engine].command(plan, "", Placement(Path(sys.executable)))
        return command.argv, command.env

    def _command(self, plan: SizedPlan) -> tuple[EngineCommand, int]:
        context = min(CONTEXT, plan.sizing.context_length)
        small = replace(plan, sizing=msgspec.structs.replace(plan.sizing, context_length=context))
        states = None
        if plan.sizing.state_bytes:  # such a launch has other caches
            states = Path(tempfile.mkdtemp(dir=self.folder)) / "states"
            states.mkdir(mode=0o700)
        engine = all_engines()[plan.engine]
        return engine.command(small, secrets.token_urlsafe(32), Placement(Path(sys.executable), states=states)), context


def _search(bench: Bench, changes: Changes, seconds: float, report: Report) -> Found:
    begin = time.monotonic()
    share = SEARCH_SHARE * seconds / (sum(map(len, changes)) + 1)

    def compare(best: Options, changed: Options) -> Comparison | None:
        new = {name: value for name, value in changed.items() if best.get(name) != value}
        if not new:
            return None
        report(f"trying {_words(new)}")
        compared = bench.compare(best, changed, ROUNDS, time.monotonic() + share)
        if compared is not None:
            report(f"  {_words({name: f'{ratio:.2f}' for name, ratio in compared.medians.items()})}")
        return compared

    def verify(best: Options) -> Comparison | None:
        report(f"comparing with the defaults: {_words(best)}")
        return bench.compare({}, best, LAST_ROUNDS, begin + seconds)

    return search(changes, compare, lambda: time.monotonic() < begin + SEARCH_SHARE * seconds, verify)


def _request(body: Mapping[str, Any]) -> LaunchRequest:
    try:
        request = LaunchBody.model_validate({**body, OPTION: False}).request()
    except ValidationError as error:
        first = error.errors()[0]
        raise bad_request(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    return request


def _check(plan: SizedPlan, changes: Changes) -> None:
    """Refuse what can't be measured.

    Raises:
        Problem: 400 ``engine_unsupported``, ``does_not_fit``.
    """
    if plan.version.family.model_type != "LLM" or not changes:
        host = read_host()
        measured = [name for name, engine in all_engines().items() if engine.option_changes(host, 1, any_answers=False)]
        raise bad_request(
            f"`xinference tune` measures only LLMs on {' and '.join(measured)}, but {plan.version.version_id} is "
            f"launched on {plan.engine}.",
            hint=f"Name an LLM that runs on {' or '.join(measured)}: `xinference engine MODEL` lists the engines.",
            code=Code.ENGINE_UNSUPPORTED,
        )
    needed, free = 2 * plan.sizing.loaded_bytes, psutil.virtual_memory().available
    if needed > free:
        raise bad_request(
            f"The measurement runs two engines. They need {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free.",
            hint="Stop other models first.",
            code=Code.DOES_NOT_FIT,
        )


def _release(plan: SizedPlan) -> str:
    engine: Engine = all_engines()[plan.engine]
    return metadata.version(engine.package) if engine.package else ""


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())
