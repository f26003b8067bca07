"""Continuous batching: sequences are added to and removed from a batch between two steps of the model.

Each sequence has a row of the cache. The rows of decoding sequences are contiguous from row 0, so that a
step reads them without copying; the rows of prompts that are being computed follow. Short prompts
are computed together, padded at their ends; a long one is computed alone, some tokens at each step.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from .cache import RowCache, Step
from .loading import LoadedModel
from .masks import attention_mask
from .sampling import token_logprob
from .sequence import Sequence, common_length
from .speculation import Speculation
from .token_choice import extend
from .vision_tower import PartOfImages, encode_images, end_of_block, part_of_images

#: Maximum prompt tokens between two decoding steps: more would stall running streams.
PREFILL_TOKENS = 512
#: Minimum length of a common prefix of two prompts that is copied rather than computed.
SHARED_TOKENS = 16
#: The positions of a token in models with several for images: time, height and width (M-RoPE).
AXES = 3


class Batch:
    """The sequences that are computed together: all of one adapter, or of the base model."""

    def __init__(self, loaded: LoadedModel, adapter: str | None, most_drafted: int) -> None:
        self.adapter = adapter
        self.generated = 0
        """Tokens, for the metrics."""
        self.speculation = Speculation(most_drafted)
        self._loaded = loaded
        # On a CPU, other programs change the time that passes, but hardly the time that is computed.
        self._clock = time.process_time if loaded.device.type == "cpu" else time.monotonic
        # One position more than the longest prompt: the first token of its answer is never fed back.
        self._cache = RowCache(loaded.layers, loaded.context_length + 1)
        self._decoding: list[Sequence] = []
        self._prefilling: Sequence | None = None
        self._waiting: deque[Sequence] = deque()

    def __len__(self) -> int:
        """Sequences that have a row."""
        return len(self._decoding) + (self._prefilling is not None)

    @property
    def busy(self) -> bool:
        return bool(len(self) or self._waiting)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence until a row is free."""
        self._waiting.append(sequence)

    def step(self, free_rows: int) -> None:
        """Compute some of the waiting prompts, at most `free_rows` new ones, and one token of each sequence."""
        self._drop_cancelled()
        with _adapter(self._loaded.model, self.adapter):
            self._prefill(free_rows)
            if self._decoding:
                self._decode()

    def fail(self) -> None:
        """End every sequence after a defect, and start with an empty cache."""
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
        """Remove a row: move the last decoding row to its place, then the last row in prefill to that one's place."""
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
            group = [self._prefilling] if self._prefilling else self._next_group(free_rows, budget)
            if not group:
                return
            if not self._encode_images(group[0]):
                self._prefilling = None
                continue
            if self._prefilling is None:
                free_rows -= len(group)
            budget -= self._compute(group, budget)

    def _next_group(self, free_rows: int, budget: int) -> list[Sequence]:
        """Waiting sequences whose prompts, padded to the longest, fit the budget; always at least the first."""
        group: list[Sequence] = []
        longest = 0
        while self._waiting and len(group) < free_rows:
            sequence = self._waiting[0]
            longest = max(longest, sequence.prompt_length)
            alone = sequence.is_computed_alone or (group and group[0].is_computed_alone)
            if group and (alone or (len(group) + 1) * longest > budget):
                break
            group.append(self._waiting.popleft())
            self._share_prefix(sequence, len(self._decoding) + len(group) - 1)
        return group

    def _share_prefix(self, sequence: Sequence, row: int) -> None:
        """Copy the computed common prefix from a running sequence; the last token is always computed."""
        if sequence.wants_prompt_logprobs:
            return
        best, length = -1, SHARED_TOKENS - 1
        for source, other in enumerate(self._decoding):
            common = common_length(sequence.content[:-1], other.content[: other.computed])
            if common > length:
                best, length = source, common
        if best >= 0:
            self._cache.copy_row(best, row, length)
            sequence.computed = length

    def _compute(self, group: list[Sequence], max_tokens: int) -> int:
        """Compute these prompts, or up to `max_tokens` tokens of a single one; returns the tokens, with the padding.

        The last token of a prompt yields the first token of its answer.
        """
        ends = [s.prompt_length for s in group] if len(group) > 1 else [self._end_of_part(group[0], max_tokens)]
        parts = [s.tokens[s.computed : end] for s, end in zip(group, ends, strict=True)]
        width, device = max(map(len, parts)), self._loaded.device
        tokens = torch.tensor([part + [0] * (width - len(part)) for part in parts], device=device)
        starts = torch.tensor([s.computed for s in group], device=device)
        # Padding is written after the end of a row: it is masked, and overwritten later.
        positions = starts[:, None] + torch.arange(width, device=device)
        whole = group[0].wants_prompt_logprobs
        last = sorted({len(part) - 1 for part in parts})
        keep = 0 if whole else torch.tensor(last, device=device)
        images = self._part_of_images(group[0], ends[0]) if group[0].images is not None else None
        logits = self._forward(tokens, positions, len(self._decoding), keep=keep, images=images)
        if whole:
            self._note_prompt(group[0], logits[0], group[0].computed)
        for sequence, end in zip(group, ends, strict=True):
            sequence.computed = end
        if ends[0] < group[0].prompt_length:
            self._prefilling = group[0]
            return width
        self._prefilling = None
        group[0].drop_images()  # a prompt with images is computed alone
        first_row = len(self._decoding)
        self._decoding += group
        places = [-1 if whole else last.index(len(part) - 1) for part in parts]
        scores = [logits[i, place][None] for i, place in enumerate(places)]
        likeliest = torch.cat(scores).argmax(-1)[:, None].tolist()
        self._extend(scores, likeliest, [[] for _ in group], first_row)
        return width * len(group)

    def _note_prompt(self, sequence: Sequence, logits: torch.Tensor, start: int) -> None:
        """Log probabilities of the prompt: the scores at a position are those of the next token."""
        alternatives = sequence.sampler.params.logprobs or 0
        if start == 0:
            sequence.prompt_logprobs.append(None)
        for offset, scores in enumerate(logits, start + 1):
            if offset < sequence.prompt_length:
                sequence.prompt_logprobs.append(token_logprob(scores.float(), sequence.tokens[offset], alternatives))

    # -- images ---------------------------------------------------------------------------------------------

    def _end_of_part(self, sequence: Sequence, max_tokens: int) -> int:
        """The position up to which a prompt is computed in this step; never within an image whose tokens need all."""
        end = min(sequence.prompt_length, sequence.computed + max_tokens)
        if sequence.images is None or not self._loaded.images_attend_both_ways:
            return end
        return end_of_block(sequence.images.places, end)

    def _encode_images(self, sequence: Sequence) -> bool:
        """Compute the features of a prompt's images; False if that fails, which ends this sequence alone."""
        images, loaded = sequence.images, self._loaded
        if images is None or sequence.features is not None or sequence.computed > images.places[-1]:
            return True
        try:
            sequence.features = encode_images(loaded.model, images, loaded.dtype, loaded.device)
        except Exception:  # noqa: BLE001 -- out of memory or a defect of the model: the other sequences continue
            traceback.print_exc()
            sequence.fail()
            sequence.drop_images()
            return False
        return True

    def _part_of_images(self, sequence: Sequence, end: int) -> PartOfImages:
        assert sequence.images is not None
        both_ways = self._loaded.images_attend_both_ways
        return part_of_images(sequence.images, sequence.features, sequence.computed, end, both_ways=both_ways)

    # -- decoding -------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """Compute the last token of each sequence, and its draft, if there is one.

        A shorter row repeats its last token at the same place, which writes the same keys and values again. Those of
        a wrong draft lie after the computed positions: they are masked, and overwritten later.
        """
        device, began = self._loaded.device, self._clock()
        drafts = self.speculation.propose(self._decoding)
        width = 1 + max(map(len, drafts))
        parts = [[s.tokens[-1], *draft] for s, draft in zip(self._decoding, drafts, strict=True)]
        tokens = torch.tensor([part + part[-1:] * (width - len(part)) for part in parts], device=device)
        places = [
            [s.computed + min(i, len(d)) for i in range(width)] for s, d in zip(self._decoding, drafts, strict=True)
        ]
        positions = torch.tensor(places, device=device)
        shown = None
        if any(s.position_offset for s in self._decoding):
            offsets = torch.tensor([s.position_offset for s in self._decoding], device=device)
            shown = (positions + offsets[:, None]).expand(AXES, -1, -1)
        logits = self._forward(tokens, positions, first_row=0, shown=shown, keep=0)
        likeliest = logits.argmax(-1).tolist()
        self.speculation.note_step(len(parts), width, self._clock() - began)
        for sequence in self._decoding:
            sequence.computed += 1
        self._extend(list(logits), likeliest, drafts)

    def _extend(
        self, scores: list[torch.Tensor], likeliest: list[list[int]], drafts: list[list[int]], first_row: int = 0
    ) -> None:
        """Choose the next tokens of these rows by their scores; sequences that have ended are removed."""
        ended = []
        for row, draft in enumerate(drafts, first_row):
            sequence = self._decoding[row]
            before = len(sequence.tokens)
            if extend(sequence, scores[row - first_row], likeliest[row - first_row], draft):
                ended.append(row)
            chosen = sequence.tokens[before:]
            self.generated += len(chosen)
            self.speculation.note_tokens(sequence, draft, chosen)
        for row in reversed(ended):
            self._remove(row)

    # -- the model ------------------------------------------------------------------------------------------

    def _forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        first_row: int,
        *,
        keep: int | torch.Tensor = 1,
        shown: torch.Tensor | None = None,
        images: PartOfImages | None = None,
    ) -> torch.Tensor:
        """Scores `[row, position, token]`: of the last position, of all (`keep` 0), or of these in each row.

        `positions` are the places in the cache; `shown` are those that the model gets, if they differ.
        """
        if images is not None and images.positions is not None:
            shown = images.positions[:, None].to(positions.device)
        length = int(positions.max()) + 1
        self._cache.begin(Step(first_row, positions, length))
        answer = self._loaded.model(
            input_ids=tokens,
            position_ids=positions if shown is None else shown,
            attention_mask=attention_mask(self._loaded, positions, length, images.blocks if images else None),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
            **(images.arguments if images else {}),
        )
        logits: torch.Tensor = answer.logits.to(self._loaded.device)
        return logits


@contextlib.contextmanager
def _adapter(model: Any, name: str | None) -> Iterator[None]:
    """Context manager: the model computes with this adapter; None: without any."""
    if not hasattr(model, "peft_config"):
        yield
    elif name is None:
        with model.disable_adapter():
            yield
    else:
        model.set_adapter(name)
        yield
