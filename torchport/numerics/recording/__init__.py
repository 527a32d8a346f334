"""Recording of launches and operator calls while a model runs."""
