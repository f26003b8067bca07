"""One answer while it is generated: its request, the computed tokens, and its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .constraints import Constraint
from .drafts import Drafter
from .prompt_images import PromptImages
from .sampling import Sampler, TokenLogprob
from .text import Detokenizer, StopStrings
from .vision_tower import ImageFeatures

FinishReason = Literal["stop", "length", "error", "constraint"]


@dataclass(frozen=True)
class Piece:
    """The result of one step: text, which may be empty, and in the last piece the finish reason."""

    text: str
    generated: int
    """Tokens generated so far."""
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    """Log probabilities of the prompt, if requested, in the first piece; the first token has none."""
    finish: FinishReason | None = None
    stop: str | None = None
    """The stop string that has ended the answer."""


@dataclass(eq=False)
class Sequence:
    """One answer. After its submission, only the scheduler's thread uses it; other threads only set `cancelled`."""

    tokens: list[int]
    """The prompt, then the generated tokens."""
    sampler: Sampler
    detokenizer: Detokenizer
    deliver: Callable[[Piece], None]
    max_tokens: int
    """Maximum number of tokens to generate."""
    stops: StopStrings = field(default_factory=lambda: StopStrings([]))
    stop_tokens: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    adapter: str | None = None
    wants_prompt_logprobs: bool = False
    images: PromptImages | None = None
    """The images of the prompt, until it is computed."""
    features: ImageFeatures | None = None
    """The output of the vision tower for them, likewise."""
    cancelled: bool = False
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    prompt_length: int = 0
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    position_offset: int = 0
    """The number that is added to a place after the prompt to get its position."""
    content: list[int] = field(default_factory=list)
    """The tokens, with a key of the images in place of the tokens that stand for them."""
    drafter: Drafter | None = None
    """Predicts the next tokens, from the first step of decoding on; None: there are no drafts."""

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)
        self.content = self.tokens
        if self.images is not None:
            self.position_offset = self.images.offset
            self.content = list(self.tokens)
            for place in self.images.places:
                self.content[place] = self.images.key

    @property
    def is_computed_alone(self) -> bool:
        """Whether the prompt is not computed together with others."""
        return self.wants_prompt_logprobs or self.images is not None

    def drop_images(self) -> None:
        """Release the images of the prompt: it is computed, or the sequence has ended."""
        if self.images is not None:
            self.images.release()
        self.images = self.features = None

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    def take(self, token: int, logprob: TokenLogprob | None) -> bool:
        """Add a token and deliver its text; True if it was the last."""
        self.tokens.append(token)
        if self.content is not self.tokens:
            self.content.append(token)
        text, finish = self._read(token)
        self.deliver(
            Piece(
                text,
                self.generated,
                (logprob,) if logprob else (),
                tuple(self.prompt_logprobs),
                finish=finish,
                stop=self.stops.text,
            )
        )
        self.prompt_logprobs = []
        return finish is not None

    def fail(self, reason: FinishReason = "error") -> None:
        """End the sequence after a defect, or because its constraint allows no further token."""
        self.deliver(Piece("", self.generated, finish=reason))

    def _read(self, token: int) -> tuple[str, FinishReason | None]:
        if self.constraint is not None:
            self.constraint.accept(token)
        if token in self.stop_tokens:
            return self._remaining_text(), "stop"
        text = self.stops.add(self.detokenizer.add(token))
        if self.stops.found:
            return text, "stop"
        if self.constraint is not None and self.constraint.is_finished:
            return text + self._remaining_text(), "stop"
        if self.generated >= self.max_tokens:
            return text + self._remaining_text(), "length"
        return text, None

    def _remaining_text(self) -> str:
        text = self.stops.add(self.detokenizer.finish())
        return text if self.stops.found else text + self.stops.finish()


def common_length(one: list[int], other: list[int]) -> int:
    """Length of the common prefix."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
