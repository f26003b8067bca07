"""`Problem`: the one error value that every door of the system shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Problem(RuntimeError):
    """A failure that names its cause and the way out.

    The same object is printed by the CLI, sent by REST and stored with a failed deployment. It is a
    RuntimeError because that is what scripts written for older clients catch.

    Attributes:
        code: stable machine-readable name, such as ``model_not_found``.
        status: the HTTP status that fits it.
        cause: one sentence that names the thing and the value.
        stage: where a launch was when it failed (``fetch``, ``start``, ``health`` …), or None.
        hint: what the user can do about it, or None.
        log_tail: the engine's last lines, oldest first.
    """

    def __init__(
        self,
        code: str,
        status: int,
        cause: str,
        *,
        stage: str | None = None,
        hint: str | None = None,
        log_tail: Iterable[str] = (),
    ) -> None:
        super().__init__(cause)
        self.code = code
        self.status = status
        self.cause = cause
        self.stage = stage
        self.hint = hint
        self.log_tail = tuple(log_tail)
        if self.log_tail:  # a traceback shows notes
            self.add_note("\n".join(["Last lines:", *(f"    {line}" for line in self.log_tail)]))

    def __str__(self) -> str:
        return f"{self.cause} {self.hint}" if self.hint else self.cause

    def at(self, stage: str) -> Problem:
        """The same problem, with the stage it happened in (kept if it already has one)."""
        return Problem(
            self.code, self.status, self.cause, stage=self.stage or stage, hint=self.hint, log_tail=self.log_tail
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as stored and as sent under ``problem``."""
        return {
            "code": self.code,
            "status": self.status,
            "stage": self.stage,
            "cause": self.cause,
            "hint": self.hint,
            "log_tail": list(self.log_tail),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Problem:
        """Read `to_dict`'s form back; missing optional fields are None."""
        return cls(
            str(data.get("code", "unknown")),
            int(data.get("status", 500)),
            str(data.get("cause", "unknown problem")),
            stage=data.get("stage"),
            hint=data.get("hint"),
            log_tail=data.get("log_tail") or (),
        )


#: Exit status of a server whose home or port is in use; it distinguishes this failure for whoever starts servers.
EXIT_IN_USE = 98


class InUse(Problem):
    """A 409: another server or program uses the home or the port. The server's process exits with `EXIT_IN_USE`."""

    def __init__(self, code: str, cause: str, *, hint: str) -> None:
        super().__init__(code, 409, cause, hint=hint)


def bad_request(cause: str, *, hint: str | None = None, code: str = "invalid_request") -> Problem:
    """A 400: the caller's input cannot be used as it is."""
    return Problem(code, 400, cause, hint=hint)


def not_found(cause: str, *, hint: str | None = None, code: str = "not_found") -> Problem:
    """A 404: the named thing does not exist."""
    return Problem(code, 404, cause, hint=hint)


def near(wanted: str, choices: Iterable[str]) -> list[str]:
    """The choices closest to `wanted`, best first; empty if nothing is close."""
    import difflib  # every client command loads this module, and few need it

    by_lower = {c.lower(): c for c in choices}
    lowered = wanted.lower()
    prefixed = [c for low, c in by_lower.items() if low.startswith(lowered)]
    close = [by_lower[m] for m in difflib.get_close_matches(lowered, by_lower, n=4, cutoff=0.6)]
    return list(dict.fromkeys(prefixed + close))[:5]
