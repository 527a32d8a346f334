"""The command line: its entry point, and how errors reach the user."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from torchport.cli import maintenance
from torchport.cli.commands import commands, device_commands, ops_commands
from torchport.cli.precision.commands import commands as precision_commands
from torchport.errors import TorchportError

__all__ = ["app", "main"]

app = typer.Typer(
    help="torch.compile through Triton kernels on any target.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(commands)
app.add_typer(precision_commands)
app.add_typer(maintenance.commands)
app.add_typer(ops_commands, name="ops")
app.add_typer(device_commands, name="device")
app.add_typer(maintenance.cache_commands, name="cache")
app.add_typer(maintenance.quarantine_commands, name="quarantine")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print torchport's version and stop.")] = False,
) -> None:
    if version:
        from torchport import __version__

        typer.echo(f"torchport {__version__}")
        raise typer.Exit


def main() -> int:
    """Run the command line. Expected errors print one sentence; with TORCHPORT_DEBUG=2 and above, a traceback.

    Their exit status is 2, as that of a wrong option: 1 is a command's answer (a kernel is at fault, a case fails).
    """
    os.environ["TORCHPORT_PROGRESS"] = "0"  # commands show their own
    try:
        app()
    except (TorchportError, OSError) as error:
        if _debug() >= 2:
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 2
    return 0


def _sentence(error: TorchportError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _debug() -> int:
    from torchport.config import config

    try:
        return config().debug
    except TorchportError:
        return 0
