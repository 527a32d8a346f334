"""``torchport profile``: where the first call's time goes."""
