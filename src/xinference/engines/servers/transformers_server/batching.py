"""Continuous batching: sequences join and leave one batch between two steps of the model.

Each sequence has a row of the cache. The rows of those that are decoding lie one after another from row 0, so that
a step reads them without copying; the one whose prompt is being computed has the row behind them.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from .cache import RowCache
from .loading import LoadedModel
from .sampling import token_logprob
from .sequence import Sequence

#: Prompt tokens computed between two steps of decoding: more would make running streams stall.
PREFILL_TOKENS = 512
#: Shortest common beginning of two prompts that is copied rather than computed.
SHARED_TOKENS = 16


class Batch:
    """The sequences that are computed together: those of one adapter, or of the plain model."""

    def __init__(self, loaded: LoadedModel, adapter: str | None) -> None:
        self.adapter = adapter
        self.generated = 0
        """Tokens, for the metrics."""
        self._loaded = loaded
        # One position more than the longest prompt: the first token of its answer is never fed back.
        self._cache = RowCache(loaded.layers, loaded.context_length + 1)
        self._decoding: list[Sequence] = []
        self._prefilling: Sequence | None = None
        self._waiting: deque[Sequence] = deque()

    def __len__(self) -> int:
        """Sequences that hold a row."""
        return len(self._decoding) + (self._prefilling is not None)

    @property
    def busy(self) -> bool:
        return bool(len(self) or self._waiting)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Let it wait for a row."""
        self._waiting.append(sequence)

    def step(self, free_rows: int) -> None:
        """Compute some of the waiting prompts, at most `free_rows` new ones, and one token of each sequence."""
        self._drop_cancelled()
        with _adapter(self._loaded.model, self.adapter):
            self._prefill(free_rows)
            if self._decoding:
                self._decode()

    def fail(self) -> None:
        """End every sequence after a defect, and begin with an empty cache."""
        everyone = [*self._decoding, *([self._prefilling] if self._prefilling else []), *self._waiting]
        for sequence in everyone:
            sequence.fail()
        self._decoding, self._prefilling = [], None
        self._waiting.clear()
        self._cache = RowCache(self._loaded.layers, self._loaded.context_length + 1)

    def _drop_cancelled(self) -> None:
        self._waiting = deque(s for s in self._waiting if not s.cancelled)
        if self._prefilling is not None and self._prefilling.cancelled:
            self._prefilling = None
        for row in reversed(range(len(self._decoding))):
            if self._decoding[row].cancelled:
                self._remove(row)

    def _remove(self, row: int) -> None:
        """Close the gap: the last row moves into it, and the one in prefill follows."""
        last = len(self._decoding) - 1
        if row != last:
            self._decoding[row] = self._decoding[last]
            self._cache.copy_row(last, row, self._decoding[row].computed)
        self._decoding.pop()
        if self._prefilling is not None and self._prefilling.computed:
            self._cache.copy_row(last + 1, last, self._prefilling.computed)

    # -- prompts --------------------------------------------------------------------------------------------

    def _prefill(self, free_rows: int) -> None:
        budget = PREFILL_TOKENS
        while budget > 0:
            if self._prefilling is None:
                if not self._waiting or free_rows <= 0:
                    return
                free_rows -= 1
                self._prefilling = self._waiting.popleft()
                self._share_prefix(self._prefilling)
            budget -= self._prefill_some(self._prefilling, budget)

    def _share_prefix(self, sequence: Sequence) -> None:
        """Copy what a running sequence has computed of the same beginning; the last token is always computed."""
        if sequence.wants_prompt_logprobs:
            return
        best, length = -1, SHARED_TOKENS - 1
        for row, other in enumerate(self._decoding):
            common = _common(sequence.tokens[:-1], other.tokens[: other.computed])
            if common > length:
                best, length = row, common
        if best >= 0:
            self._cache.copy_row(best, len(self._decoding), length)
            sequence.computed = length

    def _prefill_some(self, sequence: Sequence, most: int) -> int:
        """Compute up to `most` tokens of a prompt; with the last of them comes the first token of the answer."""
        start = sequence.computed
        end = min(sequence.prompt_length, start + most)
        device = self._loaded.device
        positions = torch.arange(start, end, device=device)[None]
        self._cache.prefill(len(self._decoding), start, end)
        logits = self._forward(
            torch.tensor([sequence.tokens[start:end]], device=device),
            positions,
            end,
            keep_all=sequence.wants_prompt_logprobs,
        )
        sequence.computed = end
        if sequence.wants_prompt_logprobs:
            self._note_prompt(sequence, logits[0], start)
        if end == sequence.prompt_length:
            self._prefilling = None
            self._decoding.append(sequence)
            self._choose([logits[0, -1]], first_row=len(self._decoding) - 1)
        return end - start

    def _note_prompt(self, sequence: Sequence, logits: torch.Tensor, start: int) -> None:
        """Log probabilities of the prompt: the scores at a position are of the token after it."""
        alternatives = sequence.sampler.params.logprobs or 0
        if start == 0:
            sequence.prompt_logprobs.append(None)
        for offset, scores in enumerate(logits, start + 1):
            if offset < sequence.prompt_length:
                sequence.prompt_logprobs.append(token_logprob(scores.float(), sequence.tokens[offset], alternatives))

    # -- decoding -------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        device = self._loaded.device
        last = torch.tensor([s.tokens[-1] for s in self._decoding], device=device)
        positions = torch.tensor([s.computed for s in self._decoding], device=device)
        length = max(s.computed for s in self._decoding) + 1
        self._cache.decode(positions, length)
        logits = self._forward(last[:, None], positions[:, None], length)
        for sequence in self._decoding:
            sequence.computed += 1
        self._choose(list(logits[:, -1]))

    def _choose(self, rows: list[torch.Tensor], first_row: int = 0) -> None:
        """One token for each of these rows of scores; those that have ended leave."""
        ended = []
        self.generated += len(rows)
        likeliest = torch.stack(rows).argmax(-1).tolist()
        for row, (logits, best) in enumerate(zip(rows, likeliest, strict=True), first_row):
            sequence = self._decoding[row]
            if sequence.constraint is None and sequence.sampler.takes_the_likeliest:
                token, logprob = best, None
            else:
                scores = logits.float()
                allowed = sequence.constraint.allowed() if sequence.constraint else None
                token = sequence.sampler.choose(scores, allowed)
                alternatives = sequence.sampler.params.logprobs
                logprob = None if alternatives is None else token_logprob(scores, token, alternatives)
            if sequence.take(token, logprob):
                ended.append(row)
        for row in reversed(ended):
            self._remove(row)

    # -- the model ------------------------------------------------------------------------------------------

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, length: int, *, keep_all: bool = False
    ) -> torch.Tensor:
        """Scores `[row, position, token]`, of the last position alone if not `keep_all`."""
        answer = self._loaded.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=self._mask(positions, length),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=0 if keep_all else 1,
        )
        logits: torch.Tensor = answer.logits.to(self._loaded.device)
        return logits

    def _mask(self, positions: torch.Tensor, length: int) -> Any:
        """0 where a position may look, the least number elsewhere, `[row, 1, position, seen]`."""
        seen = torch.arange(length, device=positions.device)
        queries = positions[:, None, :, None]
        visible = seen <= queries
        window = self._loaded.window
        if window is None:
            return self._additive(visible)
        near = self._additive(visible & (seen > queries - window))
        if not self._loaded.mixed_layers:
            return near
        return {"full_attention": self._additive(visible), "sliding_attention": near}

    def _additive(self, visible: torch.Tensor) -> torch.Tensor:
        dtype = self._loaded.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
            ~visible, torch.finfo(dtype).min
        )


def _common(one: list[int], other: list[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@contextlib.contextmanager
def _adapter(model: Any, name: str | None) -> Iterator[None]:
    """Within it the model computes with this adapter; None: without any."""
    if not hasattr(model, "peft_config"):
        yield
    elif name is None:
        with model.disable_adapter():
            yield
    else:
        model.set_adapter(name)
        yield
