"""A target that compiles every kernel and runs none."""
