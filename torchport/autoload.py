"""What PyTorch learns of torchport when it is imported."""

from __future__ import annotations

__all__ = ["autoload"]


def autoload() -> None:
    """Called by ``import torch`` (entry point ``torch.backends``).

    PyTorch can read torchport's kernels among cache artifacts. Where TORCHPORT_DEVICE is 1 it also has the device.
    """
    from torchport.config import config
    from torchport.runtime import artifacts

    artifacts.register()

    if config().device:
        from torchport.torch_device.register import install

        install()
