"""Pass ``buffers``: tensors that must live in memory get buffers of their own."""
