"""Triton's ``tt`` dialect, in generic form; the operations are Triton's (see importer.py for what changes)."""
