"""Passes that give a kernel another arithmetic: promotion to float64, noise, a chip's rules."""
