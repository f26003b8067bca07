"""The commands in a conversation, which start with a slash."""

from __future__ import annotations

import json
from pathlib import Path

import click

from xinference.cli.options.native_options import parse_value
from xinference.cli.output import note
from xinference.cli.turns import Chat, Talk
from xinference.errors import near

HELP = {
    "/help": "show these commands",
    "/exit, /bye": "leave the conversation (also Ctrl-D, or an empty line)",
    "/clear": "delete the conversation, but not the system message",
    "/system [TEXT]": "set the system message; without TEXT show it",
    "/set [NAME VALUE]": "set a request field, such as temperature 0.2, or show all",
    "/save FILE": "write the conversation to a JSON file",
}


def run_command(talk: Talk, line: str) -> bool:
    """Run a command such as ``/help``; False: the user leaves."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    match word.lower():
        case "/exit" | "/bye" | "/quit":
            return False
        case "/help" | "/?":
            for name, meaning in HELP.items():
                click.echo(f"  {name:<19} {meaning}")
            click.echo("  Ctrl-C              stop the answer")
        case "/set":
            _set(talk, rest)
        case "/clear" | "/system" | "/save" if not isinstance(talk, Chat):
            note(f"{word} is a command of `xinference chat`.")
        case "/clear":
            assert isinstance(talk, Chat)
            talk.clear()
            note("The conversation is deleted.")
        case "/system":
            assert isinstance(talk, Chat)
            if rest:
                talk.set_system(rest)
            note(f"System message: {talk.system}" if talk.system else "There is no system message.")
        case "/save":
            assert isinstance(talk, Chat)
            _save(talk, rest)
        case _:
            similar = near(word, [name.split()[0].rstrip(",") for name in HELP])
            hint = f"Did you mean {similar[0]}?" if similar else "/help lists the commands."
            note(f"There is no command {word}. {hint}")
    return True


def _set(talk: Talk, rest: str) -> None:
    name, _, value = rest.partition(" ")
    if name == "system" and isinstance(talk, Chat):
        talk.set_system(value.strip().strip('"') or None)
    elif name in ("stream", "stream_options"):
        note("The answer is always streamed here.")
    elif name and not value.strip():
        note(f"Give a value: /set {name} VALUE; `none` removes the field.")
    elif name:
        parsed = parse_value(value.strip())
        key = name.replace("-", "_")
        if parsed is None:
            talk.config.pop(key, None)
        else:
            talk.config[key] = parsed
    fields = {key: value for key, value in talk.config.items() if key not in ("stream", "stream_options")}
    note(", ".join(f"{key} = {value}" for key, value in fields.items()) or "No field is set.")


def _save(talk: Chat, name: str) -> None:
    if not name:
        note("Give the name of a file: /save chat.json")
        return
    document = {"model": talk.model.model_uid, "messages": talk.history}
    file = Path(name).expanduser()
    try:
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        note(f"{file} can't be written: {error.strerror}.")
        return
    count = sum(message["role"] != "system" for message in talk.history)
    note(f"Wrote {count} {'message' if count == 1 else 'messages'} to {file}.")
