"""Passes that lower operations on whole buffers (dots, scans, sorts, gathers, maps) to loops."""
