"""The commands ``new-backend``, ``cache`` and ``quarantine``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["cache_commands", "commands", "quarantine_commands"]

commands = typer.Typer()
cache_commands = typer.Typer(help="Show, clear and move the folder of compiled kernels.", no_args_is_help=True)
quarantine_commands = typer.Typer(
    help="Manage the list of kernels to avoid because they gave wrong results.", no_args_is_help=True
)


@commands.command("new-backend")
def new_backend(
    name: Annotated[
        str, typer.Argument(help="The first word of its targets: lower-case letters, digits, underscores.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; default: torchport-NAME.")
    ] = None,
    triton: Annotated[bool, typer.Option("--triton", help="For a vendor with its own Triton compiler.")] = False,
    linalg: Annotated[bool, typer.Option("--linalg", help="For a vendor whose compiler takes linalg.")] = False,
) -> None:
    """Write a package with a working backend and its tests, as a start for a vendor's own (docs/vendor-guide.md)."""
    from torchport.cli.new_backend import new_backend
    from torchport.errors import OptionError

    if triton and linalg:
        raise OptionError("--triton and --linalg are two kinds of compilers: give one of them")
    new_backend(name, output, kind="triton" if triton else "linalg" if linalg else "c")


@cache_commands.command("info")
def cache_info() -> None:
    """Print the folder, its size and how many kernels it holds."""
    from torchport.cli.cache import info

    info()


@cache_commands.command("clear")
def cache_clear() -> None:
    """Delete every compiled kernel."""
    from torchport.cli.cache import clear

    clear()


@cache_commands.command("export")
def cache_export(file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write all compiled kernels, and Inductor's compiled graphs, to one file for other machines."""
    from torchport.cli.cache import export

    export(file)


@cache_commands.command("import")
def cache_import(
    file: Annotated[Path, typer.Argument(help="A file of torchport cache export.")],
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Also take Inductor's graphs, which are pickles and may run code, and others' files."
        ),
    ] = False,
) -> None:
    """Store the kernels of a file in the cache, once all of it is checked. Kernels are code: import your own."""
    from torchport.cli.cache import import_

    import_(file, trust=trust)


@quarantine_commands.command("list")
def quarantine_list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the avoided kernels with target and reason; entries of other compiler or driver versions are expired."""
    from torchport.cli.quarantine import show

    show(as_json=as_json)


@quarantine_commands.command("add")
def quarantine_add(
    kernel: Annotated[str, typer.Argument(help="The kernel's identity, from `torchport port --json`.")],
    config: Annotated[str, typer.Option(help="Block sizes: 'XBLOCK=1024 num_warps=1'.")],
    target: Annotated[str, typer.Option(help="The target to avoid it on.")] = "cpu",
    reason: Annotated[str, typer.Option(help="What was wrong.")] = "added by hand",
) -> None:
    """Avoid a kernel with these block sizes on a target until its compiler or driver changes."""
    from torchport.cli.quarantine import add

    add(target, kernel, config, reason)


@quarantine_commands.command("clear")
def quarantine_clear(
    target: Annotated[str | None, typer.Option(help="Only entries of this target.")] = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="Only entries of other compiler or driver versions.")
    ] = False,
) -> None:
    """Remove entries from the list."""
    from torchport.cli.quarantine import clear

    clear(target, expired=expired)
