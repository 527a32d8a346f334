"""Passes that lower whole-tensor operations on buffers (dots, scans, sorts, transposes, maps) to loops."""
