"""torchport's compiler passes: from Triton's IR to vector loops in upstream MLIR. One pass a file."""
