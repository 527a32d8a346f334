"""Commands on the precision of models, kernels and targets."""
