"""The limits of constraints of an answer: JSON schemas, regular expressions and grammars.

Engines compile constraints, and their compilers have no limits: one request could occupy an engine for minutes, or
crash it. So the gateway limits the bytes, the depth and the number of the parts, and estimates the size of the compiled
result. The numbers are measured on the slowest engine: with a vocabulary of 49,000 tokens, an enum of 800 values costs
6 s of CPU, and 400 objects in an anyOf more than 7 s, during which the engine answers no request.
"""

from __future__ import annotations

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

MAX_BYTES = 64 * 1024
#: Maximum depth of nested objects and arrays in the JSON of a schema, and of nested parentheses.
MAX_DEPTH = 100
#: Maximum number of alternatives of one position: of anyOf, of optional properties, of a grammar's next elements.
MAX_ALTERNATIVES = 256
#: Maximum number of values of an enum or of choices, which are short and cost half as much.
MAX_VALUES = 512
#: Maximum number of properties, values, alternatives and rules in total.
MAX_PARTS = 2000
#: The same for all tools of a request: an agent has many, and an engine compiles only those that the model calls.
MAX_TOOL_PARTS = 10_000
#: Maximum number of patterns for the same text; with 16 of them, a compiler does not finish.
MAX_COMMON_PATTERNS = 8
#: Maximum number of repetitions of one part of a grammar or a regular expression.
MAX_REPEATS = 2000
#: Maximum length that a schema may require or allow of a text or an array.
MAX_LENGTH = 1_000_000
#: Maximum number of parts of a regular expression after its repetitions are expanded, and of repetitions in a grammar.
MAX_EXPANDED = 20_000


def limit_refusal(where: str, what: str, limit: int) -> Refusal:
    """The refusal of a constraint that exceeds a limit."""
    cause = f"{where}: it has more than {limit} {what}, the limit for a constraint of an answer."
    return Refusal(Code.CONSTRAINT_TOO_COMPLEX, cause, param=where)


def contradiction_refusal(where: str, cause: str) -> Refusal:
    """The refusal of a constraint that no answer can satisfy."""
    return Refusal(Code.INVALID_CONSTRAINT, f"{where}: {cause}.", param=where)
