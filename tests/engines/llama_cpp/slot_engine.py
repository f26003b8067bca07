"""A replica of llama.cpp in memory: slots with texts, which can be saved, restored and emptied; nothing is timed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class SlotEngine:
    """Answers what a placement asks for. A text stands for the tokens in a slot."""

    folder: Path
    slots: list[str] = field(default_factory=lambda: [""] * 4)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    """The characters that each request had to compute."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Requests that compute wait for it."""
    refuses: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    async def ask(self, path: str, query: bytes, body: bytes) -> tuple[int, bytes]:
        fields = json.loads(body)
        await asyncio.sleep(0)
        if not path.startswith("/slots/"):
            self.asked.append(("compute", str(fields["id_slot"])))
            await self.gate.wait()
            self.run(body)
            return 200, b"{}"
        what, number = query.decode().removeprefix("action="), int(path.rpartition("/")[2])
        self.asked.append((what, str(number)))
        if what in self.refuses:
            return 500, b'{"error": "no"}'
        if what == "erase":
            self.slots[number] = ""
            return 200, b"{}"
        file = self.folder / fields["filename"]
        if what == "save":
            file.write_text(self.slots[number])
            return 200, json.dumps({"n_written": file.stat().st_size}).encode()
        try:
            self.slots[number] = file.read_text()
        except OSError:
            return 400, b"{}"
        return 200, b"{}"

    def run(self, body: bytes) -> int:
        """Compute a placed request; returns the characters that were not in its slot."""
        fields = json.loads(body)
        text = "".join(f"<{each['role']}>{each['content']}" for each in fields["messages"])
        slot = fields["id_slot"]
        pairs = zip(text, self.slots[slot], strict=False)
        common = next(
            (n for n, (one, other) in enumerate(pairs) if one != other), min(len(text), len(self.slots[slot]))
        )
        self.slots[slot] = text
        self.computed.append(len(text) - common)
        return len(text) - common
