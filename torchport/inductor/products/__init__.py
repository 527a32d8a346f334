"""Matrix products of compiled graphs on CPUs: by kernels of torchport's where they are faster than aten's."""
