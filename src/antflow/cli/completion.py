"""`antflow completion`: makes shells complete commands, options, choices and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "antflow"
ASKED_BY = "_ANTFLOW_COMPLETE"
"""The variable with which a shell asks, even if the program runs as `python -m antflow`."""


@click.command("completion", short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that makes a shell complete commands, options, choices and files.

    Load it when your shell starts:

    \b
      bash   eval "$(antflow completion bash)"      in ~/.bashrc
      zsh    eval "$(antflow completion zsh)"       in ~/.zshrc, below compinit
      fish   antflow completion fish | source       in ~/.config/fish/config.fish

    It completes `antflow` if that is on the PATH. It imports none of your code.
    """  # noqa: D301 - the backspace tells click to keep the lines
    kind = get_completion_class(shell)
    assert kind is not None  # click knows them all
    script = kind(context.find_root().command, {}, PROGRAM, ASKED_BY).source()
    click.echo(script.encode(), nl=False)  # as bytes: no shell wants Windows line ends
