"""What an engine's option can do besides changing how the model computes: the reasons for which one is refused."""

from __future__ import annotations

from enum import Enum

_BY_PATH = "The model, its projector and its LoRA adapters are the only files that a launch names."


class Risk(Enum):
    """A class of options that a launch may not set; the value completes "it …"."""

    FILES = "opens files on the server's machine"
    PROGRAMS = "starts programs"
    NETWORK = "opens connections or ports"
    CODE = "loads code"
    PROMPTS = "writes prompts or answers to a log or a file"
    SURFACE = "changes the engine's own HTTP server"
    REQUESTS = "lets a request do more than the server checks"
    OTHER_PROGRAM = "has a meaning in other programs of the engine only"
    NO_VALUE = "takes a value that neither a command line nor JSON can express"
    UNJUDGED = "has effects that were not reviewed for this version of Xinference"

    @property
    def hint(self) -> str:
        """The way out."""
        return _HINTS.get(self, "Leave it out. docs/engines.md lists what is refused, and why.")


_HINTS = {
    Risk.FILES: f"Leave it out. {_BY_PATH}",
    Risk.PROGRAMS: f"Leave it out. {_BY_PATH}",
    Risk.NETWORK: "Leave it out: an engine is reached by its server only, and runs on one machine.",
    Risk.PROMPTS: "Leave it out: prompts and answers are not kept.",
    Risk.SURFACE: "Leave it out: clients reach the server's own routes only. docs/rest.md lists them.",
}
