"""Drafts of the Transformers server, without torch: the lookup, when drafts are tried, and how long they are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinference.engines.transformers.server.draft_lengths import LENGTHS, MOST_TOKENS, DraftLengths
from xinference.engines.transformers.server.drafts import FIRST_NEEDED, NGRAM, Drafter, NgramIndex

PROMPT = list(range(100, 140))


def scanned(tokens: list[int]) -> int | None:
    """The definition: the place after the latest earlier occurrence of the last tokens."""
    last = tokens[-NGRAM:]
    places = [end for end in range(NGRAM, len(tokens)) if tokens[end - NGRAM : end] == last]
    return places[-1] if places and len(tokens) >= NGRAM else None


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(1, 5), max_size=20))
def test_the_index_finds_what_a_scan_of_all_tokens_finds(tokens: list[int], parts: list[int]) -> None:
    grown: list[int] = []
    index = NgramIndex(grown)
    for size in [*parts, 40]:
        grown += tokens[len(grown) : len(grown) + size]
        assert index.find() == scanned(grown)


def drafter(prompt: list[int], answer: list[int], max_tokens: int = 100) -> Drafter:
    """The drafter of an answer, which got its tokens one by one."""
    tokens = list(prompt)
    made = Drafter(tokens, len(prompt), max_tokens)
    made.update()
    for token in answer:
        tokens.append(token)
        made.update()
    return made


def test_a_repeated_beginning_is_drafted_as_it_continued() -> None:
    made = drafter(PROMPT, PROMPT[5:10])
    assert made.is_trusted and made.draft(4) == PROMPT[10:14]


def test_a_text_that_repeats_itself_is_drafted_beyond_its_end() -> None:
    assert drafter([], [1, 2, 3, 1, 2, 3, 1, 2]).draft(7) == [3, 1, 2, 3, 1, 2, 3]


def test_a_new_text_has_no_draft() -> None:
    made = drafter(PROMPT, [1, 2, 3, 4])
    assert not made.is_trusted and made.draft(4) == [] and made.expected(4) == 0


def test_a_repetition_within_the_prompt_is_no_evidence_that_the_answer_repeats_it() -> None:
    assert not drafter(PROMPT * 2, []).is_trusted


def test_a_draft_ends_before_the_last_token_of_the_answer() -> None:
    for room in range(3):
        assert len(drafter(PROMPT, PROMPT[5:10], max_tokens=6 + room).draft(8)) == room


def test_wrong_drafts_need_more_evidence_each_time_and_right_ones_less() -> None:
    made = drafter(PROMPT, PROMPT[5:10])
    needed = []
    for accepted in (0, 0, 0, 4, 4, 4, 4):
        made.settle(1.0, 4, accepted)
        needed.append(made.needed)
    assert needed == [2 * FIRST_NEEDED, 4 * FIRST_NEEDED, 8 * FIRST_NEEDED, 8, 4, FIRST_NEEDED, FIRST_NEEDED]


def test_predictions_count_before_a_draft_is_computed() -> None:
    """After ten tokens that followed the prompt more is expected than after five, and less after wrong predictions."""
    few, many = drafter(PROMPT, PROMPT[5:10]), drafter(PROMPT, PROMPT[5:15])
    mixed = drafter(PROMPT, [*PROMPT[5:10], 1, *PROMPT[12:17], 2, *PROMPT[20:25]])
    assert few.expected(8) < many.expected(8) and mixed.expected(8) < many.expected(8)
    assert many.expected(2) < many.expected(16) < 16


def test_a_long_text_without_a_wrong_prediction_is_expected_to_end() -> None:
    assert 14 < drafter([], [1, 2, 3] * 1000, max_tokens=9999).expected(16) < 16


# -- lengths --------------------------------------------------------------------------------------------------------


def learned(share: float, rows: int = 1, most: int = 16) -> DraftLengths:
    """Lengths after steps in which each further token has cost this share of a step without drafts."""
    made = DraftLengths(most)
    for _ in range(20):
        for length in (0, *LENGTHS):
            made.note(rows, length, 0.1 * (1 + share * rows * length))
    return made


def test_drafts_are_longer_after_more_tokens_that_followed() -> None:
    lengths = [learned(0.1).choose([drafter(PROMPT, PROMPT[3 : 3 + size])]) for size in (5, 10, 30)]
    assert 0 < lengths[0] <= lengths[1] <= lengths[2] == 16


def test_drafts_are_shorter_the_more_a_token_costs_and_end_where_they_do_not_pay() -> None:
    lengths = [learned(share).choose([drafter(PROMPT, PROMPT[3:20])]) for share in (0.01, 0.2, 0.7, 1.0)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == 16 and lengths[-1] == 0


def test_nothing_is_drafted_before_a_step_without_drafts_was_measured() -> None:
    assert DraftLengths(16).choose([drafter(PROMPT, PROMPT[3:30])]) == 0


def test_a_sequence_without_predictions_is_not_slowed_down_by_the_drafts_of_another() -> None:
    copy, new = drafter(PROMPT, PROMPT[3:30]), drafter(PROMPT, list(range(27)))
    assert learned(0.2, rows=2).choose([copy, copy]) > 0
    assert learned(0.2, rows=2).choose([copy, new]) == 0
    new.settle(1.1, 0, 4)  # it has gained some steps, which it may give to others
    assert learned(0.2, rows=2).choose([copy, new]) > 0


def test_the_option_limits_the_length_and_the_tokens_of_a_step_are_limited() -> None:
    copies = [drafter(PROMPT, PROMPT[3:35]) for _ in range(16)]
    assert learned(0.001, most=3).choose(copies[:1]) == 3
    length = learned(0.001, rows=16).choose(copies)
    assert length > 0 and 16 * (1 + length) <= MOST_TOKENS


def test_a_busy_moment_does_not_end_drafts_for_long() -> None:
    made = learned(0.1)
    copy = drafter(PROMPT, PROMPT[3:30])
    for length in LENGTHS:
        made.note(1, length, 10.0)
    for _ in range(600):  # nothing is drafted, so no cost of a draft is measured again
        made.note(1, 0, 0.1)
    assert made.choose([copy]) > 0


# -- a whole answer ---------------------------------------------------------------------------------------------------


def seconds(prompt: list[int], answer: list[int], token_cost: float) -> tuple[float, int]:
    """What an answer costs, in steps without drafts, and the accepted tokens."""
    lengths, tokens = learned(token_cost), list(prompt)
    made = Drafter(tokens, len(prompt), len(answer))
    cost, accepted = 0.0, 0
    while len(tokens) < len(prompt) + len(answer):
        made.update()
        length = lengths.choose([made])
        draft, rest = made.draft(length), answer[len(tokens) - len(prompt) :]
        right = next((i for i, pair in enumerate(zip(draft, rest, strict=False)) if pair[0] != pair[1]), len(draft))
        if length:
            made.settle(lengths.cost(1, length), len(draft), right)
        tokens += rest[: right + 1]
        cost += 1 + token_cost * len(draft)
        accepted += right
    return cost, accepted


def edited(tokens: list[int], chance: float, seed: int) -> list[int]:
    chosen = random.Random(seed)
    return [token if chosen.random() >= chance else chosen.randrange(1000, 2000) for token in tokens]


@pytest.mark.parametrize("seed", range(5))
def test_an_edit_of_the_prompt_takes_far_fewer_steps(seed: int) -> None:
    prompt = [random.Random(seed).randrange(1000) for _ in range(300)]
    cost, accepted = seconds(prompt, edited(prompt, 0.05, seed), 0.1)
    assert 300 / cost > 1.5 and accepted > 150


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_that_seldom_continues_what_it_repeats_is_hardly_slower(seed: int) -> None:
    """Every few tokens, four tokens of the prompt are repeated, and then another one follows."""
    chosen = random.Random(seed)
    prompt = [chosen.randrange(1000) for _ in range(300)]
    answer: list[int] = []
    for _ in range(50):
        place = chosen.randrange(296)
        answer += [*prompt[place : place + 4], chosen.randrange(1000, 2000)]
    cost, _ = seconds(prompt, answer, 0.3)
    assert len(answer) / cost >= 0.98
