"""The run folder: its writer, its reader, and the statistics it keeps of tensors."""
