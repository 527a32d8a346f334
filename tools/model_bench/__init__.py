"""The parts of `tools/bench_models.py`: jobs run in processes of their own, and the report made of their results."""
