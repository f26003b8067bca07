"""What every client asks for: the models' uids and a few fixed requests."""

from __future__ import annotations

from typing import Any

#: Uids of our own choosing: an answer must carry these, not the families' names.
CHAT, EMBED, RERANK = "a-small-assistant", "vectors-of-ours", "order-of-ours"
#: Tokens that the embedding and the rerank model take.
CONTEXT = 600
#: Numbers in one vector of the embedding model.
DIMENSIONS = 256
QUESTION: list[Any] = [{"role": "user", "content": "How many days are in a week?"}]
WEATHER_QUESTION: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
TOO_LONG: list[Any] = [{"role": "user", "content": "word " * 9000}]
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: dict[str, Any] = {"name": "get_weather", "description": "The weather in a city", "parameters": CITY}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}
#: The same for Anthropic.
ANTHROPIC_TOOL: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": CITY,
}
#: One red pixel, as PNG.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
