"""Writes a tiny GGUF model that answers every prompt with one given text: each token decides its successor.

The embeddings are the rows of the unit matrix, attention and feed-forward weights are zero, and the output matrix
leads from each token to the next one of the text. For that, the text is cut into pieces of which none occurs twice;
each is a token. The other tokens, bytes of prompts, lead to the first piece.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from xinference.formats.gguf_writer import MetadataValue, NumberArray, TensorInfo, padding, write_header

_F32 = 0
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
#: Tokens before the pieces: unknown, beginning, end, and one for each byte.
_FIRST_PIECE = 3 + 256
_END = 2
_HEAD, _WIDE = 32, 32
_MARK = r"[A-Za-z0-9]+|[^A-Za-z0-9]"


def unique_pieces(text: str, marks: Sequence[str] = (), before: str = "") -> list[str]:
    """The text in pieces that occur once: words, the marks, and more characters where these would repeat.

    A prompt must not end with a piece: it ends with `before`, or with a single character, and a piece has two or more.
    """
    tokens = re.findall("|".join([*map(re.escape, sorted(marks, key=len, reverse=True)), _MARK]), text, re.DOTALL)
    pieces: list[str] = []
    piece = ""
    for token in tokens:
        piece += token
        if len(piece) > 1 and piece not in pieces and not before.endswith(piece):
            pieces.append(piece)
            piece = ""
    while piece:
        piece = (pieces.pop() if pieces else "") + piece
        if piece not in pieces or not pieces:
            pieces.append(piece)
            piece = ""
    return pieces


def write_replay(
    path: Path,
    text: str,
    marks: Sequence[str] = (),
    control: Collection[str] = (),
    before: str = "",
    template: str | None = None,
) -> list[str]:
    """Write the model that says `text`; returns its pieces. Those in `control` are control tokens, as in real models.

    See `unique_pieces` for `marks` and `before`.
    """
    pieces = unique_pieces(text, marks, before)
    count = _FIRST_PIECE + len(pieces)
    width = count + -count % _WIDE
    tensors = dict(_tensors(width, len(pieces)))
    infos = [TensorInfo(name, shape, _F32, len(data)) for name, (shape, data) in tensors.items()]
    with path.open("wb") as file:
        write_header(file, _metadata(pieces, set(control), width, template), infos)
        for _, data in tensors.values():
            file.write(data + bytes(padding(len(data))))
    return pieces


def _tensors(width: int, pieces: int) -> Iterator[tuple[str, tuple[tuple[int, ...], bytes]]]:
    """Name -> shape, row length first, and data."""
    yield "token_embd.weight", ((width, width), b"".join(_unit(width, number) for number in range(width)))
    yield "output_norm.weight", ((width,), struct.pack(f"<{width}f", *[1.0] * width))
    successors = {token: token + 1 for token in range(_FIRST_PIECE, _FIRST_PIECE + pieces - 1)}
    successors[_FIRST_PIECE + pieces - 1] = _END
    rows = [bytearray(4 * width) for _ in range(width)]
    for token in range(width):
        struct.pack_into("<f", rows[successors.get(token, _FIRST_PIECE)], 4 * token, 1.0)
    yield "output.weight", ((width, width), b"".join(map(bytes, rows)))
    for name in ("attn_norm", "ffn_norm"):
        yield f"blk.0.{name}.weight", ((width,), struct.pack(f"<{width}f", *[1.0] * width))
    for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"):
        yield f"blk.0.{name}.weight", ((width, _HEAD), bytes(4 * width * _HEAD))
    for name in ("attn_output", "ffn_down"):
        yield f"blk.0.{name}.weight", ((_HEAD, width), bytes(4 * width * _HEAD))


def _unit(width: int, number: int) -> bytes:
    row = bytearray(4 * width)
    struct.pack_into("<f", row, 4 * number, 1.0)
    return bytes(row)


def _metadata(pieces: list[str], control: set[str], width: int, template: str | None) -> dict[str, MetadataValue]:
    unused = width - _FIRST_PIECE - len(pieces)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    kinds += [_CONTROL if piece in control else _USER_DEFINED for piece in pieces]
    tokens += [f"<unused{number}>" for number in range(unused)]
    kinds += [_CONTROL] * unused
    return {
        "general.architecture": "llama",
        "general.name": "replay",
        "llama.context_length": 8192,
        "llama.embedding_length": width,
        "llama.block_count": 1,
        "llama.feed_forward_length": _HEAD,
        "llama.rope.dimension_count": _HEAD,
        "llama.attention.head_count": 1,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": _HEAD,
        "llama.attention.value_length": _HEAD,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [token.encode() for token in tokens],
        "tokenizer.ggml.scores": NumberArray.of_floats([0.0] * width),
        "tokenizer.ggml.token_type": NumberArray.of_integers(kinds),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": _END,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        **({} if template is None else {"tokenizer.chat_template": template}),
    }
