"""Runs compiled kernels: cache, launchers, devices, events, checks."""
