"""Detects a file's format from its first bytes, for the message when it is not a weight file."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Number of first bytes that `describe` needs.
SNIFF_BYTES = 512
_GGML = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
_DOWNLOAD_AGAIN = "Delete the file and download it again from its hub."


class FileDescription(NamedTuple):
    """The detected format of a file, and a hint for the user."""

    what: str
    hint: str


def describe(head: bytes, size: int, expected: Literal["GGUF", "ggml"] = "GGUF") -> FileDescription:
    """Describe a file that starts with `head`, has `size` bytes, and is not of the `expected` format."""
    if size == 0:
        return FileDescription("is empty", _DOWNLOAD_AGAIN)
    if head.startswith(b"GGUF"):
        return FileDescription("is GGUF, not the older ggml format", "Use --model-format ggufv2.")
    if head[:4] in _GGML:
        name = _GGML[head[:4]]
        return FileDescription(f"is not GGUF but the older ggml format ({name})", "Use --model-format ggmlv3.")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return FileDescription(
            "is a git-lfs pointer, not the weights it points to",
            "Run `git lfs pull` in its repository, or download it.",
        )
    if head.startswith(b"PK\x03\x04"):
        return FileDescription(
            f"is not {expected} but a zip archive (a PyTorch checkpoint or a wheel)",
            "Use --model-format pytorch with its folder.",
        )
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return FileDescription(
            f"is not {expected} but a Python pickle (an old PyTorch checkpoint)",
            "Use --model-format pytorch with its folder.",
        )
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return FileDescription(f"is not {expected} but safetensors", "Use --model-format pytorch with its folder.")
    return _describe_text(head, expected)


def _describe_text(head: bytes, expected: str) -> FileDescription:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return FileDescription(
            f"is not {expected} but an HTML page, probably an error page saved as a file", _DOWNLOAD_AGAIN
        )
    if text.startswith(b"{"):
        return FileDescription(
            f"is not {expected} but JSON text, probably an error message saved as a file", _DOWNLOAD_AGAIN
        )
    if not head.strip(b"\0"):
        return FileDescription("starts with zero bytes, probably an interrupted download", _DOWNLOAD_AGAIN)
    # The message does not quote the bytes: the file may be any file that the server's user can read.
    return FileDescription(f"is not {expected}", f"Pass a {'.gguf' if expected == 'GGUF' else 'ggmlv3 .bin'} file.")
