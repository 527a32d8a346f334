"""The parts of `tools/bench_kernels.py`: Triton kernels with their references, the jobs that time them, the report."""
