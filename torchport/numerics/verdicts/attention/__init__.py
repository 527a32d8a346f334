"""Verdicts on launches of attention: what they should give, and which fault of attention explains what they gave."""
