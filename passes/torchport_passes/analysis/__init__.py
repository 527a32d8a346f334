"""Analyses, which emit no IR: strides, masks, addresses, and the kernel arguments that pointers come from."""
