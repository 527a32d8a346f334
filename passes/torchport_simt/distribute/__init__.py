"""Passes that distribute a kernel's tensors over the lanes of a work-group."""
