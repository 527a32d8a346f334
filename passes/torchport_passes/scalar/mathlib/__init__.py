"""Mathematical functions as MLIR: inline expansions, Sleef and C library calls."""
