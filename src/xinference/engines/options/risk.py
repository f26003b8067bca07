"""The reasons to refuse an engine's option: effects other than a change of the model's computation."""

from __future__ import annotations

from enum import Enum

_ALLOWED_FILES = "A launch names no files except the model, its projector and its LoRA adapters."


class Risk(Enum):
    """An effect because of which a launch may not set an option; the value completes "it …"."""

    FILES = "opens files on the server's machine"
    PROGRAMS = "starts programs"
    NETWORK = "opens connections or ports"
    CODE = "loads code"
    PROMPTS = "writes prompts or answers to a log or a file"
    HTTP_SERVER = "changes the engine's own HTTP server"
    REQUESTS = "lets a request do more than the server checks"
    OTHER_PROGRAM = "has an effect in other programs of the engine only"
    NO_VALUE = "needs a value that neither a command line nor JSON can express"
    UNREVIEWED = "has effects that were not reviewed for this version of Xinference"

    @property
    def hint(self) -> str:
        """The hint of the problem that refuses the option."""
        return _HINTS.get(self, "Leave it out. docs/engines.md lists the refused options with the reasons.")


_HINTS = {
    Risk.FILES: f"Leave it out. {_ALLOWED_FILES}",
    Risk.PROGRAMS: f"Leave it out. {_ALLOWED_FILES}",
    Risk.NETWORK: "Leave it out: only the server connects to an engine, and an engine runs on one machine.",
    Risk.PROMPTS: "Leave it out: Xinference stores no prompts or answers.",
    Risk.HTTP_SERVER: "Leave it out: clients use the server's own routes only. docs/rest.md lists them.",
}
