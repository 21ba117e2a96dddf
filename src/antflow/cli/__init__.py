"""The `antflow` command. What a command needs is imported when it is called."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any, TextIO

import click

from antflow import __version__
from antflow.cli import check, completion, doctor, journal_commands, log_commands, run_command
from antflow.cli.demo import command as demo
from antflow.cli.output import PROGRAM
from antflow.cli.refusals import INTERRUPTED, NOBODY_READS

__all__ = ["main", "program"]


class Program(click.Group):
    """The commands, and how they end when they are interrupted or cannot print."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, or answer a shell that completes it, however it was started."""
        try:
            return super().main(*args, **({"complete_var": completion.ASKED_BY} | kwargs))
        except OSError as error:
            discard(sys.stdout)
            with suppress(OSError):
                click.echo(f"Error: cannot print: {error.strerror}", err=True)
            sys.exit(1)
        finally:
            discard_what_cannot_be_said()

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            if ctx.obj == PROGRAM and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            discard(sys.stdout)
            ctx.exit(NOBODY_READS)


def program() -> None:
    """Be the program `antflow`, which is over when its command is."""
    main(obj=PROGRAM)


def discard(stream: TextIO) -> None:
    """Print nothing more to a stream: Python would try again when it exits, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def discard_what_cannot_be_said() -> None:
    """Keep the exit code if standard error cannot be written to; Python would exit with 120.

    Standard output may lead there, too: see `output.kept_for_results`.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                discard(stream)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="antflow")
def main() -> None:
    """Staged asyncio pipelines you can watch and follow."""


for _module in (run_command, check, demo, doctor, completion, journal_commands):
    main.add_command(_module.command)
for _command in (
    log_commands.events,
    log_commands.errors,
    log_commands.report,
    log_commands.trace,
):
    main.add_command(_command)
