"""The parts of `tools/fuzz_kernels.py` and `tools/fuzz_graphs.py`: random programs, references, a minimiser."""
