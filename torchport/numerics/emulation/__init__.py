"""Library operators in a chip's arithmetic."""
