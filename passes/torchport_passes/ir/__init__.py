"""What all passes share: the table of operations, questions about IR, and small pieces of IR to build."""
