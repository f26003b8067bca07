"""Reads the instructions of a Dockerfile, as far as the one of this repository uses them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
IMAGE_SCRIPTS = ROOT / "deploy" / "images"


@dataclass(frozen=True)
class Instruction:
    """One instruction, in its stage."""

    stage: str
    word: str
    rest: str


def instructions() -> list[Instruction]:
    """The instructions in order, with continued lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    stage, found = "", []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" AS ")[2]
        found.append(Instruction(stage, word, " ".join(rest.split())))
    return found


def of_stage(stage: str, word: str) -> list[str]:
    """What follows a word in a stage, in order."""
    return [each.rest for each in instructions() if each.stage == stage and each.word == word]
