"""Passes from tensor IR to tensor IR that serve every target."""
