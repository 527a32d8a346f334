"""The run folder: its writer, its reader, statistics of a tensor."""
