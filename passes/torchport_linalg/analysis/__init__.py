"""What is known of addresses and masks: affine forms, intervals, a verdict for each access. Emits no IR."""
