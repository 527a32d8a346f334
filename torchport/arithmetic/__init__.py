"""Arithmetic as data: rules, number formats and the profiles of chips."""
