"""`Problem`: the one error value of the CLI, of REST and of the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xinference.error_codes import Code


@dataclass(frozen=True)
class Suggestion:
    """One change of a refused request with which it would be accepted."""

    change: str
    """The kind of change: ``context``, ``quantization``, ``size``, ``engine`` or ``unload``."""
    description: str
    """The change and what it needs, for people."""
    command: str
    """The complete command line."""


class Problem(RuntimeError):
    """A failure with its cause and a hint for its solution.

    The CLI prints it, REST sends it, and the store has it with a failed deployment. It is a RuntimeError, because
    scripts for older clients catch RuntimeError.

    Attributes:
        code: a `Code`; a plain string only for a code of another version or an engine.
        status: HTTP status; that of the code, except for codes that describe the answer of another server.
        cause: one sentence that names the thing and the value.
        stage: the stage in which a launch failed (``fetch``, ``start``, ``health`` …), or None.
        hint: a sentence on how to solve the problem, or None.
        log_tail: the last lines of the engine, oldest first.
        suggestions: requests that would be accepted instead, best first.
    """

    def __init__(
        self,
        code: str,
        cause: str,
        *,
        status: int | None = None,
        stage: str | None = None,
        hint: str | None = None,
        log_tail: Iterable[str] = (),
        suggestions: Iterable[Suggestion] = (),
    ) -> None:
        super().__init__(cause)
        self.code = code
        self.status = status or (code.status if isinstance(code, Code) else 500)
        self.cause = cause
        self.stage = stage
        self.hint = hint
        self.log_tail = tuple(log_tail)
        self.suggestions = tuple(suggestions)
        if self.log_tail:  # a traceback shows notes
            self.add_note("\n".join(["Last lines:", *(f"    {line}" for line in self.log_tail)]))

    def __str__(self) -> str:
        commands = " or ".join(f"`{suggestion.command}`" for suggestion in self.suggestions)
        return " ".join(part for part in (self.cause, self.hint, commands and f"What would fit: {commands}.") if part)

    def replace(self, **changes: Any) -> Problem:
        """A copy with other values; a new code replaces the status, too."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        if "code" in changes:
            del fields["status"]
        return Problem(**{**fields, **changes})

    def at(self, stage: str) -> Problem:
        """The same problem with its stage, unless it has one."""
        return self if self.stage else self.replace(stage=stage)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as stored and as sent under ``problem``."""
        return {
            "code": str(self.code),
            "status": self.status,
            "stage": self.stage,
            "cause": self.cause,
            "hint": self.hint,
            "log_tail": list(self.log_tail),
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Problem:
        """Reads `to_dict`'s form; an unknown code stays as it is.

        Fields that are missing or have another type, since another program has sent them, get their default.
        """
        status, log_tail, suggestions = (data.get(name) for name in ("status", "log_tail", "suggestions"))
        return cls(
            known_code(str(data.get("code", "unknown"))),
            str(data.get("cause", "unknown problem")),
            status=status if type(status) is int and 400 <= status < 600 else 500,
            stage=_text_or_none(data.get("stage")),
            hint=_text_or_none(data.get("hint")),
            log_tail=map(str, log_tail) if isinstance(log_tail, list | tuple) else (),
            suggestions=[
                Suggestion(**{name: str(each.get(name, "")) for name in ("change", "description", "command")})
                for each in (suggestions if isinstance(suggestions, list | tuple) else ())
                if isinstance(each, dict)
            ],
        )


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


_FIELDS = ("code", "cause", "status", "stage", "hint", "log_tail", "suggestions")

#: Exit status of a server whose home or port is in use; the starting program can distinguish this failure from others.
EXIT_IN_USE = 98


class InUse(Problem):
    """A 409: another server or program uses the home or the port. The server's process exits with `EXIT_IN_USE`."""

    def __init__(self, code: str, cause: str, *, hint: str) -> None:
        super().__init__(code, cause, hint=hint)


SERVER_STOPPING = "The server is stopping."
SERVER_STOPPING_HINT = "Ask again when a server answers here again."


def server_stopping() -> Problem:
    """A 503: the server stops, and what the caller waits for does not happen in this process any more."""
    return Problem(Code.SERVER_STOPPING, SERVER_STOPPING, hint=SERVER_STOPPING_HINT)


def defect(error: BaseException) -> Problem:
    """A 500: code of this project has raised `error`, which is no `Problem`. The caller logs the traceback."""
    return Problem(Code.INTERNAL_ERROR, f"A defect in xinference: {error!r}.")


def known_code(name: str) -> str:
    """The `Code` of this name, or the name itself if there is none."""
    try:
        return Code[name.upper()]
    except KeyError:
        return name


def bad_request(cause: str, *, hint: str | None = None, code: Code = Code.INVALID_REQUEST) -> Problem:
    """A 400: the input of the caller cannot be used."""
    return Problem(code, cause, hint=hint)


def not_found(cause: str, *, hint: str | None = None, code: Code) -> Problem:
    """A 404: the named thing does not exist."""
    return Problem(code, cause, hint=hint)


#: The begin of a text that names a model among the users of weights; the others are downloads.
MODEL = "the model "


def weights_in_use(version_id: str, users: Sequence[str]) -> Problem:
    """A 409: models and downloads use the weights that shall be deleted."""
    models = [f"`xinference terminate {user[len(MODEL) :]}`" for user in users if _is_model(user)]
    ways = []
    if models:
        ways.append(f"terminate the {'model' if len(models) == 1 else 'models'} ({', '.join(models)})")
    if not all(map(_is_model, users)):
        ways.append("cancel the download")
    return Problem(
        Code.IN_USE, f"{version_id} is in use by {join_names(users, 'and')}.", hint=f"First {' and '.join(ways)}."
    )


def _is_model(user: str) -> bool:
    return user.startswith(MODEL)


def system_reason(error: BaseException) -> str:
    """The reason of an error of the operating system or of a connection, without its number.

    >>> system_reason(OSError("[Errno -2] Name or service not known"))
    'the host name cannot be resolved'
    >>> system_reason(OSError(111, "Connection refused"))
    'Connection refused'
    """
    text = re.sub(r"\[Errno -?\d+\] ", "", str(error)).strip().rstrip(".") or type(error).__name__
    if "WRONG_VERSION_NUMBER" in text:
        return "the port does not use TLS; a URL with http:// may be right"
    text = re.sub(r"\[SSL(?:: \w+)?\] |\s*\(_ssl\.c:\d+\)", "", text)
    return "the host name cannot be resolved" if _UNRESOLVED.search(text) else text


#: What resolvers of Linux and macOS answer for a name without an address.
_UNRESOLVED = re.compile(
    r"name or service not known|name resolution|no address associated|nodename nor servname", re.IGNORECASE
)


def near(wanted: str, choices: Iterable[str]) -> list[str]:
    """The choices closest to `wanted`, best first; empty if nothing is close."""
    import difflib  # every client command loads this module, and few need it

    by_lower = {c.lower(): c for c in choices}
    lowered = wanted.strip().lower()
    beginning = _letters(lowered.partition(":")[0])  # `llama3:8b` names a version of llama3
    prefixed = [c for low, c in by_lower.items() if beginning and _letters(low).startswith(beginning)]
    close = [by_lower[m] for m in difflib.get_close_matches(lowered, by_lower, n=4, cutoff=0.6)]
    return list(dict.fromkeys(prefixed + close))[:5]


#: Maximum number of characters of a value in a message.
MAX_SHOWN = 100


def shown(value: object) -> str:
    """A value of a request for a message, as its user writes it: a text in quotes, anything else as JSON.

    >>> [shown(value) for value in ("abc", True, None, 1.5, [True, "a"])]
    ["'abc'", 'true', 'null', '1.5', '[true, "a"]']
    """
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def join_names(names: Sequence[str], conjunction: str = "or") -> str:
    """The names as a part of a sentence.

    >>> [join_names(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])]
    ['a', 'a or b', 'a, b or c']
    """
    if len(names) < 3:
        return f" {conjunction} ".join(names)
    return f"{', '.join(names[:-1])} {conjunction} {names[-1]}"


def _letters(name: str) -> str:
    """The letters and digits of `name`, so that ``llama3`` is the beginning of ``llama-3-instruct``."""
    return "".join(character for character in name if character.isalnum())
