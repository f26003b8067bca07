"""The documents, the help and the messages are in plain technical English: docs/contributing.md has the rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from tests.support.cases import in_one_test
from xinference.cli.main import COMMANDS, cli, load

ROOT = Path(__file__).parents[2]
#: What users read. The changelog quotes what was, and the rules for contributors quote what not to write.
PAGES = [
    path
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md"))
    if path.name != "contributing.md"
]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
#: Sentences that had to be read twice, and others of their kind; as patterns, without case.
DIALECT = (
    # words of its own for things that have a name in the field
    r"what each lack costs",
    r"those (that|who) may leave",
    r"idle seconds until it is unloaded; 0: only for another",
    r"go on with prompt",
    r"the very gpus",
    r"dealt out",
    r"a model of your own away",
    r"who may use the server\.",
    r"the same, for a server that is named",
    r"knows its beginning",
    r"the one with the least to do",
    r"the choice is told",
    r"its stages and the bytes that move",
    r"what the other engines run in",
    r"flags that mean nothing here",
    r"those that can't be had",
    r"times its (tokens|answers)",
    r"were promised",
    r"promised (the|by|to) (the )?(host|gpu|device|other model)",
    r"is told to those who wait",
    r"are told (so|of|about)",
    r"this minute of the clock",
    r"the share of it that is still within",
    r"what they do not say is asked for",
    r"is answered for by",
    r"it is the first of them",
    r"those who were let in",
    r"what it comes to on one machine",
    r"done in another way here",
    r"folder of everything we keep",
    r"what has an end",
    r"tried again for ever",
    r"to the last digit",
    r"is yours to add",
    r"nothing more is tried",
    r"by which answers become",
    r"of each prompt anew",
    r"is not a part of the question",
    r"breaks? off its answer",
    r"server is one machine",
    r"brings back the",
    r"(may|will) say why",
    r"as prompts come",
    r"talk in clear text",
    r"wait so long for it",
    r"takes it in again",
    # phrases with two readings
    r"tokens a second",
    r"answers? a second",
    r"requests a minute",
    r"quick deaths?",
    r"goes on working",
    r"what of xinference",
    r"one meaning, several forms",
)
#: For texts in small letters: the expression is much slower if it ignores the case.
_DIALECT = re.compile("|".join(f"(?:{pattern})" for pattern in DIALECT))


def one_line(text: str) -> str:
    """The text without line breaks and indents, so that a phrase is found wherever its line is broken."""
    return " ".join(text.split())


def phrases_of_the_dialect(path: Path) -> list[str]:
    return [found[0] for found in _DIALECT.finditer(one_line(path.read_text(encoding="utf-8")).lower())]


@in_one_test("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_phrase_of_the_dialect(page: Path) -> None:
    assert phrases_of_the_dialect(page) == []


def test_no_message_and_no_comment_has_a_phrase_of_the_dialect() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): phrases for path in SOURCES if (phrases := phrases_of_the_dialect(path))
    }
    assert found == {}


def test_a_phrase_of_the_dialect_is_found_whatever_its_case_and_its_lines(tmp_path: Path) -> None:
    assert all(pattern == pattern.lower() for pattern in DIALECT)
    page = tmp_path / "page.md"
    page.write_text("It writes 40 Tokens a\n   second.")
    assert phrases_of_the_dialect(page) == ["tokens a second"]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, also those of groups."""
    for name, (reference, _) in COMMANDS.items():
        command = load(reference)
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {each}", command.commands[each]) for each in command.commands)


def rendered_help(name: str, command: click.Command) -> str:
    return command.get_help(click.Context(command, info_name=f"xinference {name}", terminal_width=80))


ALL = dict(commands())
EACH_COMMAND = in_one_test(("name", "command"), ALL.items(), ids=list(ALL))


class TestHelp:
    @EACH_COMMAND
    def test_fits_80_columns(self, name: str, command: click.Command) -> None:
        assert [line for line in rendered_help(name, command).splitlines() if len(line) > 80] == []

    @EACH_COMMAND
    def test_begins_with_a_sentence(self, name: str, command: click.Command) -> None:
        first = one_line((command.help or "").split("\n\n")[0].replace("\b", ""))
        assert re.fullmatch(r"[A-Z].*[.:]", first), first

    @EACH_COMMAND
    def test_describes_every_option(self, name: str, command: click.Command) -> None:
        options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
        assert [option.name for option in options if not re.match(r"[A-Za-z*].*\.", option.help or "")] == []

    @EACH_COMMAND
    def test_of_a_group_shows_whole_sentences(self, name: str, command: click.Command) -> None:
        if isinstance(command, click.Group):
            assert [line for line in rendered_help(name, command).splitlines()[2:] if line.endswith("...")] == []


def test_every_line_of_the_main_help_is_a_sentence() -> None:
    assert [text for _, text in COMMANDS.values() if not re.fullmatch(r"[A-Z].*[.)]", text)] == []
    assert all(len(line) <= 80 for line in rendered_help("", cli).splitlines())
