"""Which operators models ask a torch device for, and which of them it computes itself."""
