"""Starts SGLang's own server with secrets from the environment instead of the command line.

Runs inside SGLang's environment and imports no module of Xinference. SGLang accepts its key only as an argument, which
every user of the machine could read, and a chat template only as a file. This process converts both:
``XINFERENCE_ENGINE_KEY`` becomes ``--api-key``, ``XINFERENCE_CHAT_TEMPLATE`` a private file and ``--chat-template``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Run until SGLang's server ends; then its other processes end too."""
    # The template file must exist as long as the server: each of its tokenizer processes reads it.
    with tempfile.TemporaryDirectory(prefix="xinference-sglang-") as folder:
        arguments = complete(sys.argv[1:], Path(folder))
        from sglang.srt.server_args import prepare_server_args
        from sglang.srt.utils import kill_process_tree

        server_args = prepare_server_args(arguments)
        try:
            from sglang.launch_server import run_server

            run_server(server_args)
        finally:
            kill_process_tree(os.getpid(), include_parent=False)


def complete(arguments: list[str], folder: Path) -> list[str]:
    """The command line arguments with the key and the template, which are removed from the environment."""
    complete = [*arguments, "--api-key", os.environ.pop("XINFERENCE_ENGINE_KEY")]
    template = os.environ.pop("XINFERENCE_CHAT_TEMPLATE", None)
    if template is not None:
        file = folder / "template.jinja"
        file.write_text(template, encoding="utf-8")
        complete += ["--chat-template", str(file)]
    return complete


if __name__ == "__main__":
    main()
