"""OpenCL devices as one of torchport's targets."""
