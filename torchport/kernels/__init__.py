"""torchport's Triton kernels for targets without a library: matrix products, attention, probes."""
