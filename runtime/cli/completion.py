"""`uml completion`: what a shell reads to complete command lines."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print what SHELL is to read so that Tab completes commands, options, machines, and paths inside images.

    \b
    Example:
      eval "$(uml completion bash)"
      uml completion fish > ~/.config/fish/completions/uml.fish
    """
    from runtime.cli.completing import complete
    from runtime.cli.group import uml

    return complete(uml, f"{shell}_source")
