"""GPUs reached through WebGPU as one of torchport's targets."""
