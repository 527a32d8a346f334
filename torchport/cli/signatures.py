"""The keys that commands sign with."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import typer

from torchport.signing import Signer

__all__ = ["refuse_together", "signer_of"]


def signer_of(key: Path | None) -> Signer | None:
    """What signs with the private key in a file; None without one. Asks for a passphrase if somebody is there.

    Raises OptionError for a file that holds no such key.
    """
    if key is None:
        return None
    asked = (lambda: getpass.getpass(f"passphrase of {key}: ")) if sys.stdin.isatty() else None
    return Signer.load(key, asked)


def refuse_together(sign: Path | None, verify: Path | None, public_key: Path | None, *, of: str) -> None:
    """Check the options of a command that makes and signs a file, or checks one. ``of``: the file, as a user calls it.

    Raises typer.BadParameter.
    """
    if verify is not None and sign is not None:
        raise typer.BadParameter(f"--verify checks a {of}, and --sign signs one that is made: not both")
    if verify is None and public_key is not None:
        raise typer.BadParameter("--public-key is for --verify")
