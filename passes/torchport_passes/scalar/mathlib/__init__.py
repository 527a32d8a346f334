"""Mathematical functions as MLIR: inline expansions, and calls of Sleef and the C library."""
