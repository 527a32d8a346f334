"""The ``torchport`` command. Commands import what they need when they run, so that ``--help`` answers at once."""

from torchport.cli.app import main

__all__ = ["main"]
