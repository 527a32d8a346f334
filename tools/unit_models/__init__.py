"""Models of matrix units, written apart from the emulator, and what compares both (tools/unit_agreement.py)."""
