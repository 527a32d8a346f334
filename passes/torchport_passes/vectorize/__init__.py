"""Pass ``lower-nests``: loop nests become loops over vectors."""
