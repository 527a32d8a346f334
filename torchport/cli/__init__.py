"""The ``torchport`` command. Commands import their modules when they run, which keeps ``--help`` fast."""

from torchport.cli.app import main

__all__ = ["main"]
