"""torchport's CPU target: an out-of-tree Triton backend (entry point group ``triton.backends``, name ``cpu``).

``import triton`` imports ``compiler`` and ``driver`` of this package, so both are cheap: torch, MLIR and LLVM are
imported when a kernel is compiled or launched.
"""
