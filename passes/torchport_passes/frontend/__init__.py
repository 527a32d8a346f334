"""From Triton's output to generic MLIR: the importer, Triton's options, libdevice, source locations."""
