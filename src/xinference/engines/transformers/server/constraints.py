"""Constrained answers, by llguidance: JSON, a JSON schema, or a tool call."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import llguidance
import llguidance.hf
import torch

from .errors import RefusedError
from .limited import LimitError, Workers, WorkFailedError

#: Whitespace between the parts of JSON; with unbounded whitespace small models never end.
WHITESPACE = r"[ \n]{0,4}"
#: Limits of llguidance for one grammar. Its own limits allow grammars that take seconds.
LIMITS = {
    "max_items_in_row": 2000,
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 100_000,
}


class ConstraintError(Exception):
    """No token can follow in the grammar of a sequence."""


class Constraint:
    """The state of one sequence in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int, device: torch.device) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._device = device

    def copy(self) -> Constraint:
        """A constraint in the same state, for another sequence."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size, self._device)

    @property
    def is_finished(self) -> bool:
        """Whether no further token can follow."""
        return bool(self._matcher.is_stopped())

    def allowed_tokens(self) -> torch.Tensor:
        """True for each token of the vocabulary that may follow.

        Raises:
            ConstraintError: the grammar allows no further token, or exceeds a limit at this position.
        """
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        if self._matcher.is_error():
            raise ConstraintError(f"the grammar allows no further token: {self._matcher.get_error()}")
        return mask[: self._vocab_size].bool().to(self._device)

    def accept(self, token: int) -> None:
        """Advance by the chosen token."""
        self._matcher.consume_token(token)


class Grammars:
    """Compiles grammars for one tokenizer."""

    def __init__(
        self, tokenizer: Any, vocab_size: int, eos: tuple[int, ...], device: torch.device, workers: Workers
    ) -> None:
        self._workers = workers
        self._tokenizer, self._vocab_size, self._eos, self._device = tokenizer, vocab_size, eos, device
        self._lock = threading.Lock()
        self._ready: llguidance.LLTokenizer | None = None

    def compile(self, grammar: str, param: str) -> Constraint:
        """The constraint in its initial state; each sequence gets a copy. Slow: run it in a thread.

        The grammar is compiled in a separate process first, and in this one only if that was fast enough.

        Args:
            param: the request's field with the constraint.

        Raises:
            RefusedError: 400: the grammar or schema is wrong, or exceeds a limit.
        """
        try:
            fault = self._workers.do("validate", grammar=grammar, limits=LIMITS)
        except LimitError as error:
            cause = f"The schema is too complex: its compilation takes {error}."
            raise RefusedError(cause, code="constraint_too_complex", param=param) from None
        except WorkFailedError as error:
            fault = str(error)
        if not fault:
            matcher = llguidance.LLMatcher(self.tokenizer(), grammar, limits=llguidance.LLParserLimits(**LIMITS))
            fault = matcher.get_error()
        if fault:
            raise RefusedError(f"The schema is not valid: {fault}", param=param)
        return Constraint(matcher, self._vocab_size, self._device)

    def tokenizer(self) -> llguidance.LLTokenizer:
        """Built on first use: that takes about a second for a large vocabulary."""
        with self._lock:
            if self._ready is None:
                try:
                    self._ready = llguidance.hf.from_tokenizer(
                        self._tokenizer, n_vocab=self._vocab_size, eos_token=list(self._eos) or None
                    )
                except ValueError as error:
                    raise RefusedError(f"This model's tokenizer can't be constrained: {error}") from None
            return self._ready


def json_grammar(schema: Mapping[str, Any] | bool) -> str:
    """JSON of a schema; ``{"type": "object"}`` permits any object."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    # With SentencePiece an answer begins with a space, which decoding drops; without it, the first token would be a
    # rare one.
    return _lark('start: " "? value', f"value: %json {_with_whitespace(schema)}")


def tool_grammar(tools: Mapping[str, Mapping[str, Any]], several: bool) -> str:
    """One call of one of these tools (name -> schema of its arguments) in Hermes' format, or several calls."""
    rules = [f"start: call{' (NEWLINE call)*' if several else ''}", 'NEWLINE: "\\n"']
    rules.append("call: " + " | ".join(f"tool_{i}" for i in range(len(tools))))
    for i, (name, schema) in enumerate(tools.items()):
        begin = f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": '
        rules.append(f"tool_{i}: {_literal(begin)} arguments_{i} {_literal('}' + chr(10) + '</tool_call>')}")
        rules.append(f"arguments_{i}: %json {_with_whitespace(schema)}")
    return _lark(*rules)


def _lark(*rules: str) -> str:
    return str(llguidance.LLMatcher.grammar_from_lark("\n".join(rules) + "\n"))


def _with_whitespace(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": WHITESPACE}})


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
