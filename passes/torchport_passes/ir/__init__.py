"""Ground floor of the passes: what they know about operations, and small pieces of IR that they build."""
