"""Code generation for one graph: block sizes, kernels, and the Python code around them."""
