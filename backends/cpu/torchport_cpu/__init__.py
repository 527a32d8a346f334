"""torchport's CPU target: an out-of-tree Triton backend (entry point group ``triton.backends``, name ``cpu``).

Triton imports ``compiler`` and ``driver`` of this package whenever it is imported itself, so both are cheap: torch,
MLIR and LLVM come in when a kernel is compiled or launched.
"""
