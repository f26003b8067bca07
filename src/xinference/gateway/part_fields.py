"""The members of the parts of messages that are passed on; an engine may read others as media."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xinference.error_codes import Code
from xinference.protocol import exact_requests
from xinference.protocol.errors import Refusal

_PART = frozenset(exact_requests.Part.__struct_fields__)
#: The objects of a part with media, and their members.
_MEDIA = {
    "image_url": frozenset(exact_requests.Link.__struct_fields__),
    "audio_url": frozenset(exact_requests.Link.__struct_fields__),
    "input_audio": frozenset(exact_requests.Recording.__struct_fields__),
    "source": frozenset(exact_requests.MediaSource.__struct_fields__),
}

Body = dict[str, Any]
#: Members of a message with media, in the form of other servers.
_MEDIA_OF_MESSAGES = ("images", "audios", "videos", "files", "attachments")


def check_messages(messages: Any) -> None:
    """Refuse media beside the content of a message: engines pass over them.

    Raises:
        Refusal: 400, naming the member.
    """
    for n, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            check_message(message, f"messages[{n}]")


def check_message(message: Body, at: str) -> None:
    """The same for one message, whose place in the body is `at`."""
    for name in _MEDIA_OF_MESSAGES:
        if message.get(name):
            cause = f"{at}.{name}: a message has media only in its content."
            hint = "Send each image as a part of the content."
            raise Refusal(Code.UNSUPPORTED_FIELD, cause, hint=hint, param=f"{at}.{name}")


def other_members(body: Body) -> Iterator[tuple[Body, str]]:
    """The members of the parts of a checked body that are not passed on, each with the object that has it."""
    yield from _of_parts(body.get("system"))
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            yield from _of_parts(message.get("content"))


def _of_parts(parts: Any) -> Iterator[tuple[Body, str]]:
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            continue
        yield from ((part, name) for name in part if name not in _PART)
        for name, known in _MEDIA.items():
            media = part.get(name)
            if isinstance(media, dict):
                yield from ((media, member) for member in media if member not in known)
        yield from _of_parts(part.get("content"))
