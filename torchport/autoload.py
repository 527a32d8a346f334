"""Registers the device with PyTorch when PyTorch is imported, where TORCHPORT_DEVICE=1 asks for it."""

from __future__ import annotations

__all__ = ["autoload"]


def autoload() -> None:
    """Called by ``import torch`` (entry point ``torch.backends``). Does nothing unless TORCHPORT_DEVICE is 1."""
    from torchport.config import config

    if config().device:
        from torchport.torch_device.register import install

        install()
