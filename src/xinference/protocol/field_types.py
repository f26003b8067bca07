"""The types of the fields of request bodies, with the limits of OpenAI's and Anthropic's API references."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, UnsetType

Name = Annotated[str, Meta(min_length=1)]
#: The largest number that all engines read: some keep numbers of tokens and token ids in 32 bits.
MAX_INT32 = 2**31 - 1
Positive = Annotated[int, Meta(ge=1, le=MAX_INT32)]
TokenId = Annotated[int, Meta(ge=-MAX_INT32 - 1, le=MAX_INT32)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
#: Engines multiply and divide by it in 32 bits.
Repetition = Annotated[float, Meta(ge=1e-3, le=1e3)]
Share = Annotated[float, Meta(ge=0, le=1)]
#: 0 or -1: all tokens.
TopK = Annotated[int, Meta(ge=-1, le=MAX_INT32)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
UpTo20 = Annotated[int, Meta(ge=0, le=20)]
Choices = Annotated[int, Meta(ge=1, le=128)]
#: A text that ends an answer.
StopText = Annotated[str, Meta(max_length=1024)]
Stops = StopText | Annotated[list[StopText], Meta(max_length=64)]
#: OpenAI's bounds; `false`: the token never appears.
TokenBias = Annotated[float, Meta(ge=-100, le=100)] | bool
Bias = Annotated[dict[Annotated[str, Meta(max_length=1024)], TokenBias], Meta(max_length=1024)]
#: How much a model thinks, in the words of all APIs.
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
#: JSON that is not decoded here; `schema_limits` checks its size and complexity.
JsonObject = Annotated[msgspec.Raw | UnsetType, Meta(extra_json_schema={"type": ["object", "null"]})]
JsonOrText = Annotated[msgspec.Raw | UnsetType, Meta(extra_json_schema={"type": ["object", "string", "null"]})]


class Opaque(Struct):
    """Any JSON object."""


#: Text, several texts, token ids, or several lists of token ids.
Tokens = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
#: A switch in each form that pydantic, which other servers use, reads as a boolean: clients send texts and numbers.
Switch = (
    bool
    | Literal[
        0, 1, "0", "1", "true", "false", "True", "False", "TRUE", "FALSE", "yes", "no", "Yes", "No", "YES", "NO", "on",
        "off", "On", "Off", "ON", "OFF", "t", "f", "T", "F", "y", "n", "Y", "N",
    ]
)  # fmt: skip
_ON = frozenset({"1", "true", "yes", "on", "t", "y"})


def is_on(switch: Switch | None) -> bool:
    """Whether a switch is on; an absent one is off."""
    return switch.lower() in _ON if isinstance(switch, str) else bool(switch)
