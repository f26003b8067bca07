"""`xinference completion`: a script for shell completion."""

from __future__ import annotations

import click

PROGRAM = "xinference"
VARIABLE = "_XINFERENCE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell. To switch completion on:

    \b
    bash: echo 'eval "$(xinference completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(xinference completion zsh)"' >> ~/.zshrc
    fish: xinference completion fish > ~/.config/fish/completions/xinference.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
