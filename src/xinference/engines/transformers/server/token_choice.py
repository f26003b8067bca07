"""Chooses the next tokens of one sequence from the scores at its last positions."""

from __future__ import annotations

import traceback
from collections.abc import Sequence as Tokens

import torch

from .constraints import ConstraintError
from .sampling import TokenLogprob, token_logprob
from .sequence import Sequence


def extend(sequence: Sequence, scores: torch.Tensor, likeliest: Tokens[int], draft: Tokens[int]) -> bool:
    """Choose one token, and a further one after each that equals the draft's; True if the answer has ended.

    Every token is chosen as without a draft: by the sampler, the constraint and the stop rules of the sequence.

    Args:
        sequence: its last token is computed.
        scores: `[position, token]`, after its last token and after each token of the draft.
        likeliest: the token with the highest score at each position.
        draft: the tokens that were computed after the last one.
    """
    for place in range(len(draft) + 1):
        try:
            token, logprob = _choose(sequence, scores[place], likeliest[place])
        except ConstraintError:
            traceback.print_exc()
            sequence.fail("constraint")  # the others continue
            return True
        if sequence.take(token, logprob):
            return True
        if place == len(draft) or token != draft[place]:
            break
        sequence.computed += 1
    return False


def _choose(sequence: Sequence, scores: torch.Tensor, likeliest: int) -> tuple[int, TokenLogprob | None]:
    if sequence.constraint is None and sequence.sampler.is_greedy:
        return likeliest, None
    scores = scores.float()
    allowed = sequence.constraint.allowed_tokens() if sequence.constraint else None
    token = sequence.sampler.choose(scores, allowed)
    alternatives = sequence.sampler.params.logprobs
    return token, None if alternatives is None else token_logprob(scores, token, alternatives)
