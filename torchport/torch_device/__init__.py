"""The torch device ``torchport``: tensors in the memory of targets that PyTorch has no support for (docs/device.md)."""
