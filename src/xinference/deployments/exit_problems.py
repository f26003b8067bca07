"""The problems of engines that have exited, with what a user can do about them."""

from __future__ import annotations

from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.process.command import Exit, Fault
from xinference.process.snapshot import ReplicaSnapshot
from xinference.routing.table import Crash

#: The code of an engine's exit by its fault.
FAULT_CODES = {
    Fault.HUNG: Code.ENGINE_HUNG,
    Fault.MEMORY_CEILING: Code.ENGINE_OUT_OF_MEMORY,
    Fault.NODE_LOST: Code.NODE_GONE,
    Fault.NODE_LEFT: Code.NODE_LEAVING,
}
#: The faults of a machine, with which the engine has nothing to do.
_OF_NODES = (Fault.NODE_LOST, Fault.NODE_LEFT)
#: The hint for an exit by its fault, in place of what the engine's log tells.
FAULT_HINTS = {
    Fault.HUNG: "One of its requests may be the cause. XINFERENCE_HUNG_SECONDS is the time for the answer to a probe.",
    Fault.MEMORY_CEILING: "One of its requests may be the cause. XINFERENCE_ENGINE_MEMORY_MARGIN raises the ceiling.",
    Fault.KERNEL: "The kernel killed it because memory was exhausted: use a smaller context, quantization or model, or "
    "terminate another model.",
    Fault.NODE_LOST: "`xinference cluster info` shows the state of its machine.",
    Fault.NODE_LEFT: "Start `xinference-worker` on its machine again, or add another machine.",
}


def exit_code(exit: Exit | None) -> Code:
    """The code of an engine's exit."""
    fault = exit.fault if exit is not None else None
    return Code.ENGINE_DIED if fault is None else FAULT_CODES.get(fault, Code.ENGINE_DIED)


def exit_problem(uid: str, engine: Engine, exit: Exit) -> Problem:
    """The problem of an engine that was ready and has exited."""
    hint = FAULT_HINTS[exit.fault] if exit.fault is not None else engine.explain(exit.log_tail)
    return Problem(exit_code(exit), f"The engine of {uid} {exit.reason}.", hint=hint, log_tail=exit.log_tail)


def start_problem(problem: Problem, exit: Exit | None) -> Problem:
    """The problem of an engine that did not become ready, with the code and hint of its fault, if it had one."""
    if exit is None or exit.fault is None or problem.code != Code.ENGINE_DIED:
        return problem
    return problem.replace(code=exit_code(exit), hint=FAULT_HINTS[exit.fault])


def with_engine_hint(engine: Engine, problem: Problem) -> Problem:
    """The problem with the hint that the engine derives from the last log lines, unless the problem has a hint."""
    if problem.hint is not None:
        return problem
    return problem.replace(hint=engine.explain(problem.log_tail))


def restart_limit_problem(uid: str, last: Problem, exits: int) -> Problem:
    """The problem of an engine that is not started again; `last` is the problem of its last exit."""
    return Problem(
        Code.ENGINE_KEEPS_DYING,
        f"{last.cause} The engine exited {exits} times in a row, so it is not started again.",
        stage=last.stage,
        hint=last.hint or f"`xinference logs {uid}` shows its output. Launch the model again when the cause is fixed.",
        log_tail=last.log_tail,
    )


def crash_of(process: ReplicaSnapshot) -> Crash | None:
    """The crash of a replica whose engine has ended without a request, or is being killed; else None.

    The end of a machine or of its worker is no crash: no request has caused it.
    """
    exit, fault = process.exit, process.fault
    if exit is not None:
        return None if exit.requested or exit.fault in _OF_NODES else Crash(process.replica_id, exit_code(exit))
    if fault is None or fault in _OF_NODES:
        return None
    return Crash(process.replica_id, FAULT_CODES.get(fault, Code.ENGINE_DIED))
