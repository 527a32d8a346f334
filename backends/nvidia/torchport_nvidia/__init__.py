"""NVIDIA GPUs as one of torchport's targets, over stock Triton's own compiler."""
