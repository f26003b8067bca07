"""Samples one token from the scores of one sequence, in the order that vLLM uses:
bias, penalties, constraint, temperature, top_k, top_p, min_p."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

#: Number of candidates that are sorted first: sorting a whole vocabulary costs more than all other steps.
FIRST_CANDIDATES = 512
#: A lower temperature is 0: scores divided by it would not be finite.
MIN_TEMPERATURE = 1e-5
#: Scores are kept within it, so that they are finite after the division.
MAX_SCORE = 1e30


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters; the defaults change nothing."""

    temperature: float = 1.0
    """0: always the most likely token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    """Divides the scores of tokens of prompt and answer (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    """Number of alternatives to report with each token; None: no log probabilities at all."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its natural log probability before any sampling rule, and the most likely alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Samples the tokens of one sequence, with its own random generator."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], vocab_size: int, device: torch.device) -> None:
        self.params = params
        self._temperature = params.temperature if params.temperature >= MIN_TEMPERATURE else 0.0
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if params.seed is None else params.seed & (2**63 - 1))
        self._counts: torch.Tensor | None = None
        self._seen: torch.Tensor | None = None
        if params.presence_penalty or params.frequency_penalty:
            self._counts = torch.zeros(vocab_size, device=device)
        if params.repetition_penalty != 1:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor(prompt, device=device)] = True
        self._bias_ids = torch.tensor(list(params.logit_bias), dtype=torch.long, device=device)
        self._bias = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32, device=device)

    @property
    def is_greedy(self) -> bool:
        """Whether the token is the maximum of the scores, which can be computed for the whole batch at once."""
        params = self.params
        return self._temperature == 0 and params.logprobs is None and not self._changes_scores

    @property
    def _changes_scores(self) -> bool:
        return self._counts is not None or self._seen is not None or bool(self.params.logit_bias)

    def choose(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> int:
        """The next token.

        Args:
            logits: float32 scores, one for each token of the vocabulary; left as they are.
            allowed: bool of the same shape; None: every token.
        """
        scores = self._adjust(logits) if self._changes_scores else logits
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        token = int(scores.argmax()) if self._temperature == 0 else self._draw(scores / self._temperature)
        self.note(token)
        return token

    def note(self, token: int) -> None:
        """Count a chosen token."""
        if self._counts is not None:
            self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True

    def _adjust(self, logits: torch.Tensor) -> torch.Tensor:
        scores, params = logits.clone(), self.params
        scores[self._bias_ids] += self._bias
        if self._seen is not None:
            penalty = params.repetition_penalty
            scores = torch.where(self._seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)
        if self._counts is not None:
            scores -= params.frequency_penalty * self._counts + params.presence_penalty * (self._counts > 0)
        return scores.nan_to_num_(nan=-MAX_SCORE, posinf=MAX_SCORE, neginf=-MAX_SCORE).clamp_(-MAX_SCORE, MAX_SCORE)

    def _draw(self, scores: torch.Tensor) -> int:
        probabilities, ids = self._candidates(torch.softmax(scores, dim=-1))
        cumulative = probabilities.cumsum(0, dtype=torch.float64)
        at = torch.rand((), generator=self._generator, dtype=torch.float64).to(cumulative.device) * cumulative[-1]
        place = int(torch.searchsorted(cumulative, at, right=True).clamp(max=len(cumulative) - 1))
        return place if ids is None else int(ids[place])

    def _candidates(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The remaining probabilities, most likely first, and their tokens; None: all, in the vocabulary's order."""
        params, size = self.params, len(probabilities)
        if not params.top_k and params.top_p >= 1 and params.min_p <= 0:
            return probabilities, None
        values, ids = probabilities.topk(min(size, params.top_k or FIRST_CANDIDATES))
        if not params.top_k and len(values) < size and not self._enough(values):
            values, ids = probabilities.sort(descending=True)
        if params.top_k:
            values = values / values.sum()
        # A token stays if those before it have not reached top_p: the most likely one always does.
        keep = values.cumsum(0) - values < max(params.top_p, 1e-9)
        keep &= values >= params.min_p * values[0]
        return values[keep], ids[keep]

    def _enough(self, values: torch.Tensor) -> bool:
        """Whether no token after the first ones can remain."""
        params = self.params
        return bool(values.sum() >= params.top_p) or bool(values[-1] < params.min_p * values[0])


def token_logprob(logits: torch.Tensor, token: int, alternatives: int) -> TokenLogprob:
    """The log probabilities to report for a chosen token."""
    logprobs = torch.log_softmax(logits, dim=-1)
    top: tuple[tuple[int, float], ...] = ()
    if alternatives:
        values, ids = logprobs.topk(alternatives)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token, float(logprobs[token]), top)
