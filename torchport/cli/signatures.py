"""The keys that commands sign with."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from torchport.signing import Signer

__all__ = ["signer_of"]


def signer_of(key: Path | None) -> Signer | None:
    """What signs with the private key in a file; None without one. Asks for a passphrase if somebody is there.

    Raises OptionError for a file that holds no such key.
    """
    if key is None:
        return None
    asked = (lambda: getpass.getpass(f"passphrase of {key}: ")) if sys.stdin.isatty() else None
    return Signer.load(key, asked)
