"""torchport's CPU target: an out-of-tree Triton backend (entry point group ``triton.backends``, name ``cpu``).

Triton imports ``compiler`` and ``driver`` of this package whenever it is imported itself, so both must import quickly:
torch, MLIR and LLVM are imported when a kernel is compiled or launched.
"""
