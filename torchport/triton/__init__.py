"""All that touches Triton's internals, but for the compiler backends themselves."""
