"""Passes that change the arithmetic of a kernel: promotion to float64, noise, and the rules of a chip."""
