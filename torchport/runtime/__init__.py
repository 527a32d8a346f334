"""What compiled kernels need to be kept, launched and accounted for."""
