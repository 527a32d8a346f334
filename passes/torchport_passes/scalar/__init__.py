"""Passes that lower single operations: math functions, conversions, narrow floats, division."""
