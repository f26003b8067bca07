"""Writes a small projector of LLaVA's kind (CLIP and two matrices), for models as wide as asked; it sees nothing true.

Names and keys: llama.cpp's tools/mtmd/clip-impl.h.
"""

from __future__ import annotations

import math
import random
import sys
from array import array
from pathlib import Path

from xinference.formats.gguf_writer import MetadataValue, NumberArray, TensorInfo, padding, write_header

IMAGE_SIZE = 28
PATCH = 14
#: Tokens of the model's that one picture becomes.
TOKENS = (IMAGE_SIZE // PATCH) ** 2
_HIDDEN = 32
_FEED_FORWARD = 64
_BLOCKS = 2
_F32 = 0


def write_mmproj(out: Path, width: int, *, projector: str = "mlp") -> Path:
    """Write to `out` a projector for a model whose tokens are `width` numbers; the weights have a seed."""
    seeded = random.Random(7)
    shapes = _shapes(width)
    tensors = {name: _numbers(name, math.prod(shape), seeded) for name, shape in shapes.items()}
    infos = [TensorInfo(name, shapes[name][::-1], _F32, len(data)) for name, data in tensors.items()]
    with out.open("wb") as file:
        write_header(file, _metadata(width, projector), infos)
        for tensor in tensors.values():
            file.write(tensor + bytes(padding(len(tensor))))
    return out


def _metadata(width: int, projector: str) -> dict[str, MetadataValue]:
    return {
        "general.architecture": "clip",
        "general.name": "tiny-projector",
        "general.file_type": 0,
        "clip.has_vision_encoder": True,
        "clip.projector_type": projector,
        "clip.use_gelu": False,
        "clip.vision.image_size": IMAGE_SIZE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": _HIDDEN,
        "clip.vision.feed_forward_length": _FEED_FORWARD,
        "clip.vision.projection_dim": width,
        "clip.vision.block_count": _BLOCKS,
        "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": NumberArray.of_floats([0.5, 0.5, 0.5]),
        "clip.vision.image_std": NumberArray.of_floats([0.5, 0.5, 0.5]),
    }


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, row length last."""
    shapes: dict[str, tuple[int, ...]] = {
        "v.class_embd": (_HIDDEN,),
        "v.patch_embd.weight": (_HIDDEN, 3, PATCH, PATCH),
        "v.position_embd.weight": (TOKENS + 1, _HIDDEN),
        "v.pre_ln.weight": (_HIDDEN,),
        "v.pre_ln.bias": (_HIDDEN,),
        "v.post_ln.weight": (_HIDDEN,),
        "v.post_ln.bias": (_HIDDEN,),
        "mm.0.weight": (width, _HIDDEN),
        "mm.0.bias": (width,),
        "mm.2.weight": (width, width),
        "mm.2.bias": (width,),
    }
    for block in range(_BLOCKS):
        at = f"v.blk.{block}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            shapes |= {f"{at}.{name}.weight": (_HIDDEN, _HIDDEN), f"{at}.{name}.bias": (_HIDDEN,)}
        for name in ("ln1", "ln2"):
            shapes |= {f"{at}.{name}.weight": (_HIDDEN,), f"{at}.{name}.bias": (_HIDDEN,)}
        shapes |= {f"{at}.ffn_up.weight": (_FEED_FORWARD, _HIDDEN), f"{at}.ffn_up.bias": (_FEED_FORWARD,)}
        shapes |= {f"{at}.ffn_down.weight": (_HIDDEN, _FEED_FORWARD), f"{at}.ffn_down.bias": (_HIDDEN,)}
    return shapes


def _numbers(name: str, count: int, seeded: random.Random) -> bytes:
    """Little-endian floats near zero; near one where a norm multiplies by them."""
    centre = 1.0 if name.endswith(("ln.weight", "ln1.weight", "ln2.weight")) else 0.0
    numbers = array("f", [seeded.gauss(centre, 0.02) for _ in range(count)])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
