"""Runs of several ranks: what collectives should have given, and what replicas and shards should be."""
