"""The parts of `tools/bench_precision.py`: kernels, faults put into them, legal variants, and rival checks."""
