"""Passes that make one lane, which computes with vectors, of all lanes of a work-group."""
