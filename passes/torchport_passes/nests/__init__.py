"""Passes that group operations into loop nests (``tp.nest``) and mark the memory accesses that stream through them."""
