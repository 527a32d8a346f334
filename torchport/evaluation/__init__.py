"""``torchport eval``: many models on many targets, one report (docs/eval.md)."""
