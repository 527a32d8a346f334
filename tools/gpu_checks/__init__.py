"""The steps of tools/gpu_check.py, and what runs them."""
