"""``python -I limited_worker.py`` does one piece of work at a time for the server, which kills it at a deadline.

A chat template is a program of the model's authors, and a grammar is a program of the client. Both can run without end,
also in a C function that no thread can interrupt, and can use all memory. So they run in this process, whose
memory is limited.

Requests and answers are JSON, each after its length in 8 bytes. This program imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO, ClassVar

MAX_MEMORY = 2 * 1024**3
MAX_OUTPUT = 4 * 1024**2
#: Seconds of CPU after which the kernel ends this process, if the server has exited without killing it.
CPU_SECONDS = 30
LENGTH_BYTES = 8


class WorkError(Exception):
    """The work cannot be done, because of an error in the template, the grammar or the request."""


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not write into an answer
    works: dict[str, Callable[[Any], Any]] = {"render": render, "validate": validate}
    for request in _requests(source):
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        try:
            answer = {"result": works[request["work"]](request)}
        except MemoryError:
            answer = {"limit": f"more than {MAX_MEMORY // 1024**2} MiB of memory"}
        except WorkError as error:
            answer = {"limit": str(error)}
        except RecursionError:
            answer = {"error": "it is nested too deeply"}
        except Exception as error:  # noqa: BLE001 -- a template may raise whatever it likes
            answer = {"error": str(error) or type(error).__name__}
        data = json.dumps(answer).encode()
        sink.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        sink.flush()
    return 0


def _requests(source: BinaryIO) -> Iterator[dict[str, Any]]:
    while len(length := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        yield json.loads(source.read(int.from_bytes(length, "big")))


# -- chat templates ---------------------------------------------------------------------------------------------


def render(request: dict[str, Any]) -> str:
    """The text of a chat template with these values; rendered in pieces, so that an endless text is detected."""
    pieces, size = [], 0
    for piece in compile_template(request["template"]).generate(**request["values"]):
        size += len(piece)
        if size > MAX_OUTPUT:
            raise WorkError(f"more than {MAX_OUTPUT // 1024**2} MiB of text")
        pieces.append(piece)
    return "".join(pieces)


@lru_cache(maxsize=4)
def compile_template(template: str) -> Any:
    """The template, compiled in the same environment as in transformers' `_compile_jinja_template`."""
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks the model's own messages; the marks have no effect here."""

        tags: ClassVar = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    environment.globals["dict"] = _TemplateDict()
    environment.globals["namespace"] = _namespace_type()
    return environment.from_string(template)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


class _TemplateDict:
    def __call__(self, *arguments: Any, **named: Any) -> dict[Any, Any]:
        return dict(*arguments, **named)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


def _namespace_type() -> Any:
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    def check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"Chat templates cannot store the attribute {name!r} on a namespace.")

    class TemplateNamespace(Namespace):
        """A namespace that refuses the names of Python's special attributes."""

        def __init__(*arguments: Any, **named: Any) -> None:  # so that ``namespace(self=...)`` works
            values = dict(*arguments[1:], **named)
            for name in values:
                check(name)
            Namespace.__init__(arguments[0], values)

        def __setitem__(self, name: Any, value: Any) -> None:
            check(name)
            Namespace.__setitem__(self, name, value)

    return TemplateNamespace


# -- grammars ---------------------------------------------------------------------------------------------------


def validate(request: dict[str, Any]) -> str:
    """The error of a grammar, checked without a tokenizer; empty if there is none."""
    import llguidance

    limits = llguidance.LLParserLimits(**request["limits"])
    return str(llguidance.LLMatcher.validate_grammar(request["grammar"], None, limits=limits) or "")


if __name__ == "__main__":
    sys.exit(main())
