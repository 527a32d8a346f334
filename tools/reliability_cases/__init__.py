"""The cases of ``tools/reliability.py``."""
