"""Questions to nodes: each gets its own answer, from its own node."""

from __future__ import annotations

import asyncio

import pytest

from tests.deployments.doubles import turns
from xinference.fabric.fabric import NodeGoneError
from xinference.fabric.frames import Answer, Failure
from xinference.fabric.questions import Questions


async def test_each_question_gets_the_answer_with_its_number() -> None:
    questions, sent = Questions(), list[int]()
    first = asyncio.create_task(questions.call("n1", sent.append, 60))
    second = asyncio.create_task(questions.call("n2", sent.append, 60))
    await turns()
    questions.answer(Answer(sent[1], b"two"), "n2")
    questions.answer(Answer(sent[0], b"one"), "n1")
    assert (await first, await second) == (b"one", b"two")


async def test_a_node_answers_no_question_to_another() -> None:
    questions, sent = Questions(), list[int]()
    asked = asyncio.create_task(questions.call("n1", sent.append, 60))
    await turns()
    questions.answer(Answer(sent[0], b"false"), "n2")
    questions.answer(Answer(sent[0] + 1, b"unknown"), "n1")
    await turns()
    assert not asked.done()
    questions.answer(Answer(sent[0], b"true"), "n1")
    assert await asked == b"true"


async def test_a_lost_link_fails_the_questions_to_its_node_only() -> None:
    questions, sent = Questions(), list[int]()
    lost = asyncio.create_task(questions.call("n1", sent.append, 60))
    other = asyncio.create_task(questions.call("n2", sent.append, 60))
    await turns()
    questions.end("n1")
    with pytest.raises(NodeGoneError):
        await lost
    assert not other.done()
    questions.answer(Failure(sent[1], "timeout"), "n2")
    with pytest.raises(TimeoutError):
        await other
