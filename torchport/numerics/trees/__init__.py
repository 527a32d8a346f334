"""The order of operations of a kernel, as data: what each result is a sum of, and in which order."""
